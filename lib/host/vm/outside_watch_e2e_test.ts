/** What a real QEMU's VM says past kemari is told by name: at the start, in the status, and later. */
import assert from "node:assert/strict";
import { BarePair } from "../../lab/testing/bare_pair.ts";
import type { QemuSeries } from "../../lab/provision/qemu.ts";
import { runKemari } from "../../lab/program/run_kemari.ts";
import type { TappedStatus } from "../../lab/program/ask_end.ts";
import { KemariProcess } from "../../lab/program/kemari_process.ts";
import { QmpClient } from "./qmp_client.ts";
import { until } from "../../lab/program/until.ts";

/** Two NICs of which one can go through kemari, a third to be plugged, and a channel. */
async function boot(version: QemuSeries): Promise<BarePair & { readonly net: string }> {
  const net = await Deno.makeTempFile({ prefix: "kemari-net-" });
  await Deno.remove(net);
  const again = version === "11.1" ? "reconnect-ms=50" : "reconnect=1";
  const pair = await BarePair.boot(version, {
    accelerator: "tcg",
    timer: "apic",
    args: [
      ...["-netdev", `stream,id=n0,server=off,addr.type=unix,addr.path=${net},${again}`],
      ...["-device", "e1000,netdev=n0,id=net0,romfile="],
      ...["-netdev", "hubport,id=h0,hubid=0", "-netdev", "user,id=u0"],
      ...["-netdev", "hubport,id=h1,hubid=0,netdev=u0"],
      ...["-device", "virtio-net-pci,netdev=h0,id=web,mac=52:54:00:00:00:77,romfile="],
      ...["-netdev", "user,id=u1"],
    ],
  });
  return Object.assign(pair, { net });
}

Deno.test("e2e: NICs that go past kemari are named at protect, in status and by doctor", async () => {
  await using pair = await boot("11.1");
  // No second QEMU, which would connect to the primary's sockets.
  const words = ["recv", pair.link, "--control", pair.recvControl, "--exec", "cat >/dev/null"];
  const recv = pair.own(new KemariProcess(words));
  await recv.listening();
  using _out = Deno.listen({ transport: "unix", path: `${pair.folder}/out` });
  const protect = pair.protect(
    "--net",
    `net0=unix:${pair.net},unix:${pair.folder}/out`,
    "--sync-interval",
    "20",
  );
  const { outside } = await pair.syncs(5);
  await protect.waitFor(
    /NIC web \(virtio-net-pci, 52:54:00:00:00:77, user u0.*does not go through/,
  );
  assert.doesNotMatch(protect.stderr, /NIC net0/);
  assert.match(protect.stderr, /Not held until it is committed either: .*unix:/);
  assert.equal(outside!.unheld, null);
  assert.deepEqual(outside!.nics.map(({ name }) => name), ["web"]);
  const { stdout } = await runKemari(["status", pair.sendControl]);
  assert.match(stdout, /\nNOT HELD +what NIC web \(virtio-net-pci, 52:54:00:00:00:77, user u0/);

  // One that is plugged in between two sessions: QEMU plugs nothing in while it migrates.
  recv.signal("SIGKILL");
  await protect.waitFor(/the VM goes on unprotected, trying again/);
  await using qmp = await QmpClient.connect(pair.primary.spareQmpPath);
  await qmp.execute("device_add", { driver: "e1000", netdev: "u1", id: "late", romfile: "" });
  await protect.waitFor(/NIC late \(e1000, /, 30_000);
  await until(async () => {
    const status = await pair.senderStatus(() => true) as TappedStatus;
    return status.outside!.nics.map(({ name }) => name).join() === "web,late";
  }, "the status to name both");
  assert.equal(protect.stderr.match(/NIC web/g)!.length, 1);
});

for (const version of ["5.2", "7.2", "10.0", "11.1"] as const) {
  Deno.test(`e2e: one sentence tells that nothing is held, and doctor tells it too: ${version}`, async () => {
    await using pair = await BarePair.boot(version, {
      accelerator: "tcg",
      timer: "apic",
      // Two slirps of 7.2 have the same name in its stream, which kemari refuses.
      args: ["-netdev", "user,id=u0", "-device", "e1000,netdev=u0,romfile="],
    });
    const doctor = await runKemari(["doctor", "--qmp", pair.primary.qmpPath]);
    assert.match(doctor.stdout, /next: No NIC of this VM goes through kemari/);
    await pair.recv();
    await pair.secondary();
    const protect = pair.protect("--sync-interval", "20");
    const { outside } = await pair.syncs(1);
    assert.match(outside!.unheld!, /No NIC/);
    assert.equal(outside!.nics.length, 1);
    assert.equal(protect.stderr.match(/No NIC of this VM/g)?.length, 1);
    assert.doesNotMatch(protect.stderr, /NIC e1000|Not held/);
    const { stdout } = await runKemari(["status", pair.sendControl]);
    assert.match(stdout, /\nNOT HELD +what the NICs send: none has a --net/);
  });
}
