/** What a net tap does before and behind a takeover. */
import assert from "node:assert/strict";
import { encodeRarpAnnouncement } from "../../packet/arp.ts";
import { INPUT_BYTES_PER_EPOCH } from "../../replica/events/tap_events.ts";

import { frame, MAC, numberOf, Scene } from "./testing/net_tap_scene.ts";

Deno.test("replayed frames go before anything that the guest says", async () => {
  await using scene = await Scene.open();
  scene.tap.replay([frame(1), frame(2)]);
  const guest = await scene.connectGuest();
  guest.send(3);
  await scene.settle();
  scene.world.read();
  assert.deepEqual(scene.world.numbers, [1, 2, 3]);
});

Deno.test("while frames are held, what the world sends is told of as well, up to a bound", async () => {
  await using scene = await Scene.open();
  const told: Uint8Array[] = [];
  scene.tap.follow({ inputs: (frames) => void told.push(...frames) });
  const guest = await scene.connectGuest();
  scene.world.send(1);
  await scene.settle();
  scene.tap.hold();
  scene.world.send(2, 3);
  await scene.settle();
  assert.deepEqual(told.map(numberOf), [2, 3]);
  const most = INPUT_BYTES_PER_EPOCH / 64;
  for (let at = 4; at < most + 100; at += 100) {
    scene.world.send(...Array.from({ length: 100 }, (_, i) => at + i));
    await scene.settle(2);
    guest.read();
  }
  await scene.settle();
  assert.equal(told.length, most);
  scene.tap.closeEpoch(1);
  scene.world.send(9999);
  await scene.settle();
  assert.equal(numberOf(told.at(-1)!), 9999);
  scene.tap.passThrough();
  scene.world.send(10_000);
  await scene.settle();
  assert.equal(numberOf(told.at(-1)!), 9999, "there is no secondary any more");
  guest.read();
  assert.equal(guest.numbers.at(-1), 10_000, "the guest has them all");
});

Deno.test("inputs go to every QEMU that connects, until one has spoken", async () => {
  await using scene = await Scene.open();
  assert.equal(scene.tap.hear([frame(1), frame(2)]), 2);
  const first = await scene.connectGuest();
  first.read();
  assert.deepEqual(first.numbers, [1, 2]);
  scene.closePeer(first);
  await scene.settle();
  const second = await scene.connectGuest();
  scene.world.send(3);
  await scene.settle();
  second.read();
  assert.deepEqual(second.numbers, [1, 2, 3]);
  second.send(7);
  await scene.settle();
  scene.closePeer(second);
  await scene.settle();
  const third = await scene.connectGuest();
  third.read();
  assert.deepEqual(third.numbers, []);
});

Deno.test("a guest that stands still is told nothing, and then the last of what it has missed", async () => {
  await using scene = await Scene.open({ isDeaf: true });
  const guest = await scene.connectGuest();
  scene.world.send(1, 2);
  await scene.settle();
  assert.equal(scene.tap.counters.droppedNoGuest, 2);
  const missed = Array.from({ length: 100 }, (_, i) => frame(100 + i, 1500));
  const given = scene.tap.hear(missed);
  assert.equal(given, Math.floor(INPUT_BYTES_PER_EPOCH / 1500));
  scene.world.send(3);
  await scene.settle();
  guest.read();
  assert.deepEqual(guest.numbers, [...missed.slice(-given).map(numberOf), 3]);
  scene.tap.deafen();
  scene.world.send(4);
  await scene.settle();
  guest.read();
  assert.equal(guest.numbers.at(-1), 3);
});

Deno.test("an announcement is made once nobody else has made it in time", async () => {
  await using scene = await Scene.open();
  scene.tap.announce(MAC, 15);
  await scene.settle(30);
  scene.world.read();
  assert.deepEqual(scene.world.frames, [encodeRarpAnnouncement(MAC)]);
  assert.deepEqual(scene.told, ["announced by kemari"]);
});

Deno.test("the guest's own announcement is enough", async () => {
  await using scene = await Scene.open();
  const guest = await scene.connectGuest();
  scene.tap.announce(MAC, 30);
  guest.socket.send(encodeRarpAnnouncement(MAC));
  guest.socket.flush();
  await scene.settle(60);
  scene.world.read();
  assert.equal(scene.world.frames.length, 1);
  assert.deepEqual(scene.told, ["guest", "announced by guest"]);
});
