/** Two VMs and one secondary: whose replica it keeps. */
import assert from "node:assert/strict";
import { BarePair } from "../../lab/testing/bare_pair.ts";
import { startBareVm } from "../../lab/bare_guest/bare_vm.ts";
import { failover } from "../../lab/testing/kemari_pair.ts";
import { ensureQemu } from "../../lab/provision/qemu.ts";
import { KemariProcess } from "../../lab/program/kemari_process.ts";

Deno.test("e2e: another VM's protect is refused once, by name, and the replica stays whose it is", async () => {
  const machine = { accelerator: "tcg", timer: "apic", pages: 2 } as const;
  await using pair = await BarePair.boot("11.1", machine);
  const recv = await pair.recv();
  const secondary = await pair.secondary();
  const first = pair.protect("--sync-interval", "20");
  await pair.syncs(10);
  assert.deepEqual((await pair.senderStatus(() => true)).vm, { name: "primary", uuid: null });
  first.signal("SIGKILL");
  await first.ended();
  const { vm, lastCommitted } = await pair.receiverStatus(({ state }) => state === "waiting");
  assert.deepEqual(vm, { name: "primary", uuid: null });

  const { program: qemu } = await ensureQemu("11.1");
  const uuid = "01234567-89ab-cdef-0123-456789abcdef";
  const args = ["-uuid", uuid];
  const other = pair.own(await startBareVm({ ...machine, name: "other", qemu, args }));
  await using stranger = new KemariProcess(["protect", "--qmp", other.qmpPath, pair.link]);
  // It ends by itself: a second try would not mend it.
  const { code, stderr } = await stranger.ended();
  assert.equal(code, 3, stderr);
  assert.match(stderr, /refused the connection: .*keeps transaction \d+ of VM primary/);
  assert.match(stderr, new RegExp(`another one, VM other \\(${uuid}\\)`));
  assert.match(stderr, /hint: .*--vm.*--replace/);
  await pair.assertRunning(other);
  await recv.waitFor(/a sender was refused: .*VM primary.*VM other/);
  const kept = await pair.receiverStatus(({ state }) => state === "waiting");
  assert.equal(kept.lastCommitted, lastCommitted);
  assert.deepEqual(kept.vm, vm);

  // A second protect of the same VM just works, and the VM can be taken over.
  const again = pair.protect("--sync-interval", "20");
  await pair.syncs(10);
  await pair.primary.powerCut();
  assert.equal((await again.ended()).code, 4);
  await pair.receiverStatus(({ state }) => state === "waiting");
  await failover(pair);
  await pair.assertTakenOver(secondary);
});
