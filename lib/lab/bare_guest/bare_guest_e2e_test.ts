/** The bare guest on one QEMU, under TCG and KVM. */

import assert from "node:assert/strict";
import { QmpClient } from "../../host/vm/qmp_client.ts";
import { bootBare, testBareGuest } from "../testing/bare_guest_boots.ts";

testBareGuest("11.1");

Deno.test("e2e: each dirtied page changes the sum, and a damaged byte is found", async () => {
  await using vm = await bootBare("11.1", { accelerator: "tcg", pages: 0, every: 10 });
  await vm.counted(10);
  assert.equal((await vm.verify()).sum, "00000000", "nothing was painted");
  await vm.set({ pages: 1 });
  const before = await vm.verify();
  await vm.counted(30);
  const after = await vm.verify();
  assert.ok(after.ok && after.sum !== before.sum, after.text);
  await vm.ask("spoil");
  const spoilt = await vm.verify();
  assert.ok(!spoilt.ok, spoilt.text);
  // Painting over it does not hide it: 1 MiB has 256 pages, of 16 cells each.
  await vm.set({ pages: 256, hz: 200 });
  await vm.counted((await vm.status()).count + 40);
  assert.match((await vm.verify()).text, /^verify BAD at=00200004 /);
});

Deno.test("e2e: the bare guest answers where its timer is dead, and stops and starts", async () => {
  await using vm = await bootBare("11.1", { accelerator: "tcg", timer: "none" });
  assert.equal((await vm.status()).interrupts, 0);
  await vm.set({ timer: "pit", hz: 18 });
  await vm.counted(3);
  await vm.ask("stop");
  const { count, interrupts } = await vm.status();
  while ((await vm.status()).interrupts < interrupts + 3);
  assert.equal((await vm.status()).count, count);
  await vm.ask("start");
  await vm.counted(count + 1);
  await assert.rejects(vm.ask("dance"), RangeError);
  await assert.rejects(vm.ask("cpus=2"), RangeError);
  await assert.rejects(vm.ask("pages=many"), RangeError);
});

Deno.test("e2e: QEMU's own firmware boots the bare guest too, and its words are checked", async () => {
  await using vm = await bootBare("7.2", { accelerator: "tcg", qemuFirmware: true });
  await vm.counted(3);
  await using wrong = await bootBare("7.2", { accelerator: "tcg", regionKiB: 64 * 1024 });
  await wrong.console.waitFor(/^panic: region must be whole pages, in KiB, and fit into RAM$/);
});

Deno.test("e2e: another boot has another id, and clears what the last one painted", async () => {
  await using vm = await bootBare("11.1", { accelerator: "tcg" });
  await vm.counted(3);
  const { boot: before } = await vm.status();
  await using qmp = await QmpClient.connect(vm.spareQmpPath);
  const from = vm.console.lines.length;
  await qmp.execute("system_reset");
  await vm.console.waitFor(/^count 3$/, { from });
  const found = await vm.verify();
  assert.ok(found.ok, found.text);
  assert.notEqual(found.boot, before);
});
