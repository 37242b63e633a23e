/** `kemari send` with a monitor: how a VM ended, or that it is here, is told to the secondary. */
import assert from "node:assert/strict";
import { BarePair } from "../lab/testing/bare_pair.ts";
import { EagerSecondary } from "../lab/testing/eager_secondary.ts";
import { FROM_SOURCE } from "../lab/program/kemari_process.ts";
import { migrateStopped } from "../lab/vms/stopped_migration.ts";
import { QmpClient } from "./vm/qmp_client.ts";

/** What becomes of the VM → what the secondary says of it. */
const ENDS: readonly (readonly [string, RegExp, (qmp: QmpClient) => Promise<unknown>])[] = [
  ["quit", /the VM was shut down at the primary \(host-qmp-quit\)/, (qmp) => qmp.execute("quit")],
  [
    "x-colo-lost-heartbeat",
    /the sender has ended the protection \(QEMU's migration was /,
    (qmp) => qmp.execute("x-colo-lost-heartbeat"),
  ],
  [
    "migrate_cancel",
    /the sender has ended the protection \(QEMU's migration was /,
    (qmp) => qmp.execute("migrate_cancel"),
  ],
];

for (const [what, words, end] of ENDS) {
  Deno.test(`e2e: kemari send --qmp tells the secondary of ${what}: nobody is fenced`, async () => {
    await using pair = await BarePair.boot("11.1", { accelerator: "tcg", timer: "apic" });
    const secondary = await EagerSecondary.start(pair);
    await using qmp = await QmpClient.connect(pair.primary.qmpPath);
    await qmp.execute("migrate-set-capabilities", {
      capabilities: ["return-path", "x-colo"].map((capability) => ({ capability, state: true })),
    });
    await qmp.execute("migrate-set-parameters", { "x-checkpoint-delay": 20 });
    const send = [...FROM_SOURCE, "send", pair.link, "--control", pair.sendControl];
    const monitor = ["--qmp", pair.primary.spareQmpPath];
    await migrateStopped(qmp, `exec:exec ${[...send, ...monitor].join(" ")}`);
    await pair.syncs(20);
    await end(qmp).catch(() => {});
    await secondary.recv.waitFor(words);
    const { state } = await pair.receiverStatus(({ state }) => state !== "receiving");
    assert.equal(state, "waiting");
    assert.ok(!secondary.hasFenced);
    if (what !== "quit") await pair.assertRunning(pair.primary);
  });
}
