/** The pair of bare guests itself, under TCG; under KVM it is in `protect_kvm_e2e_test.ts`. */

import { failover } from "../testing/kemari_pair.ts";
import { BarePair } from "../testing/bare_pair.ts";

for (const takeover of ["cold", "warm"] as const) {
  Deno.test(`e2e: under tcg the bare guest goes on, ${takeover}, saying each fifth number`, async () => {
    await using pair = await BarePair.boot("11.1", {
      accelerator: "tcg",
      machine: "q35",
      timer: "apic",
      hz: 200,
      every: 5,
      cpus: 2,
    });
    const standby = takeover === "warm" ? await pair.standby() : undefined;
    if (standby) await pair.recvWithStandby(standby.vm);
    else await pair.recv();
    const secondary = standby ?? await pair.secondary();
    const protect = pair.protect("--sync-interval", "10");
    await pair.syncs(100);
    await pair.assertRunning(pair.primary);
    if (standby) await pair.receiverStatus((status) => status.standby?.state === "ready");
    await pair.primary.powerCut();
    await protect.ended();
    await failover(pair);
    await pair.assertTakenOver(secondary);
  });
}
