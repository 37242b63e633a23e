import assert from "node:assert/strict";
import { TransportError, WireError } from "../../errors.ts";
import { macText } from "../../packet/ethernet.ts";
import { encodeFrame } from "../../packet/testing/encode_frame.ts";
import { NetTap } from "./net_tap.ts";
import { parseNetTap } from "./net_tap_address.ts";

import { frame, numberOf, Scene } from "./testing/net_tap_scene.ts";
import { never } from "../system/never.ts";

Deno.test("frames pass both ways at once, in order", async () => {
  await using scene = await Scene.open();
  const guest = await scene.connectGuest();
  guest.send(1, 2, 3);
  scene.world.send(10, 11);
  await scene.settle();
  scene.world.read();
  guest.read();
  assert.deepEqual(scene.world.numbers, [1, 2, 3]);
  assert.deepEqual(guest.numbers, [10, 11]);
  const { passedOut, passedIn, heldFrames, guestConnected } = scene.tap.counters;
  assert.deepEqual([passedOut, passedIn, heldFrames, guestConnected], [3, 2, 0, true]);
  assert.equal(macText(scene.tap.guestMac!), "52:54:00:12:34:56");
  assert.deepEqual(scene.told, ["guest"]);
});

Deno.test("held frames wait for their epoch; frames for the guest do not", async () => {
  await using scene = await Scene.open({ holdFrames: true });
  const guest = await scene.connectGuest();
  guest.send(1, 2);
  await scene.settle();
  guest.send(3);
  scene.world.send(10);
  await scene.settle();
  assert.deepEqual(scene.told, ["guest", "held"], "told once an epoch");
  assert.deepEqual(scene.tap.closeEpoch(1).frames.map(numberOf), [1, 2, 3]);
  guest.send(4);
  await scene.settle();
  scene.tap.closeEpoch(2);
  scene.world.read();
  guest.read();
  assert.deepEqual(scene.world.numbers, []);
  assert.deepEqual(guest.numbers, [10]);
  scene.tap.release(1);
  scene.world.read();
  assert.deepEqual(scene.world.numbers, [1, 2, 3]);
  scene.tap.release(2);
  scene.world.read();
  assert.deepEqual(scene.world.numbers, [1, 2, 3, 4]);
  assert.deepEqual(scene.told, ["guest", "held", "held", "released 1", "released 2"]);
  const { releasedFrames, passedOut, heldBytes, hold } = scene.tap.counters;
  assert.deepEqual([releasedFrames, passedOut, heldBytes, hold.count], [4, 0, 0, 4]);
  assert.ok(hold.p50 > 0);
});

Deno.test("drain takes what is in the socket now; what comes later joins the next epoch", async () => {
  await using scene = await Scene.open({ holdFrames: true });
  const guest = await scene.connectGuest();
  guest.send(...Array.from({ length: 500 }, (_, i) => i));
  scene.tap.drain();
  assert.equal(scene.tap.closeEpoch(1).frames.length, 500);
  guest.send(500);
  scene.tap.release(1);
  scene.tap.drain();
  scene.world.read();
  assert.equal(scene.world.frames.length, 500);
  assert.deepEqual(scene.tap.closeEpoch(2).frames.map(numberOf), [500]);
});

Deno.test("passThrough lets everything go in order, then all that comes", async () => {
  await using scene = await Scene.open({ holdFrames: true });
  const guest = await scene.connectGuest();
  guest.send(1);
  scene.tap.drain();
  scene.tap.closeEpoch(1);
  guest.send(2);
  scene.tap.drain();
  guest.send(3);
  scene.tap.passThrough();
  guest.send(4);
  await scene.settle();
  scene.world.read();
  assert.deepEqual(scene.world.numbers, [1, 2, 3, 4]);
});

Deno.test("a full line asks for a sync and stops reading; nothing is lost", async () => {
  await using scene = await Scene.open({
    holdFrames: true,
    limits: { maxFrames: 100, maxBytes: 1 << 20 },
  });
  const guest = await scene.connectGuest();
  let sent = 0;
  const fill = () => {
    while (guest.socket.send(frame(sent, 1000))) sent++;
    guest.socket.flush();
  };
  fill();
  await scene.settle();
  fill();
  await scene.settle();
  assert.equal(scene.told.filter((each) => each === "full").length, 1);
  const held = scene.tap.counters.heldFrames;
  assert.ok(held >= 100 && held < sent, `${held} of ${sent}`);
  for (let epoch = 1; scene.world.frames.length < sent; epoch++) {
    assert.ok(epoch < 200, "all frames arrive in the end");
    scene.tap.closeEpoch(epoch);
    scene.tap.release(epoch);
    guest.socket.flush();
    await scene.settle(2);
    scene.world.read();
  }
  assert.deepEqual(scene.world.numbers, Array.from({ length: sent }, (_, i) => i));
});

Deno.test("a world that does not read holds the guest back; nothing is lost", async () => {
  await using scene = await Scene.open({ limits: { maxFrames: 50, maxBytes: 1 << 20 } });
  const guest = await scene.connectGuest();
  const total = 4000;
  let sent = 0;
  const fill = () => {
    while (sent < total && guest.socket.send(frame(sent, 1500))) sent++;
    guest.socket.flush();
  };
  for (let i = 0; i < 10; i++) {
    fill();
    await scene.settle(3);
  }
  assert.ok(sent < total, "the guest's side is blocked");
  assert.ok(!scene.told.includes("full"), "no sync helps against a slow world");
  while (scene.world.frames.length < total) {
    fill();
    scene.world.read();
    await scene.settle(1);
  }
  assert.deepEqual(scene.world.numbers, Array.from({ length: total }, (_, i) => i));
});

Deno.test("a guest that does not read holds the world back", async () => {
  await using scene = await Scene.open();
  const guest = await scene.connectGuest();
  const total = 5000;
  let sent = 0;
  const fill = () => {
    while (sent < total && scene.world.socket.send(frame(sent, 1500))) sent++;
    scene.world.socket.flush();
  };
  for (let i = 0; i < 10; i++) {
    fill();
    await scene.settle(3);
  }
  assert.ok(sent < total);
  while (guest.frames.length < total) {
    fill();
    guest.read();
    await scene.settle(1);
  }
  assert.deepEqual(guest.numbers, Array.from({ length: total }, (_, i) => i));
  assert.equal(scene.tap.counters.droppedNoGuest, 0);
});

Deno.test("a second QEMU is turned away; the next is taken once the first is gone", async () => {
  await using scene = await Scene.open();
  const first = await scene.connectGuest();
  const second = await scene.connectGuest();
  second.read();
  assert.equal(second.ended, true);
  assert.match(scene.faults[0].message, /second QEMU/);
  first.send(1);
  scene.closePeer(first);
  const third = await scene.connectGuest();
  third.send(2);
  await scene.settle();
  scene.world.read();
  assert.deepEqual(scene.world.numbers, [1, 2]);
  assert.deepEqual(scene.told, ["guest", "no guest", "guest"]);
  assert.equal(scene.tap.counters.refusedGuests, 1);
});

Deno.test("lying lengths cost the liar its connection, and nothing else", async () => {
  await using scene = await Scene.open({ maxFrameBytes: 1514 });
  const guest = await scene.connectGuest();
  guest.send(1);
  guest.socket.send(new Uint8Array(1515));
  guest.socket.flush();
  await scene.settle();
  assert.ok(scene.faults[0] instanceof WireError && scene.faults[0].fault === "too-large");
  guest.read();
  assert.equal(guest.ended, true);
  const again = await scene.connectGuest();
  again.send(2);
  await scene.settle();
  scene.world.read();
  assert.deepEqual(scene.world.numbers, [1, 2]);
});

Deno.test("frames without a guest are counted, as with a machine that is off", async () => {
  await using scene = await Scene.open();
  scene.world.send(1, 2);
  await scene.settle();
  assert.equal(scene.tap.counters.droppedNoGuest, 2);
});

Deno.test("an OUT that goes away is reported and tried again; held frames stay", async () => {
  await using scene = await Scene.open();
  const guest = await scene.connectGuest();
  scene.closePeer(scene.world);
  await scene.settle();
  assert.match(scene.faults[0].message, /closed the connection/);
  guest.send(1, 2);
  await scene.settle(700);
  assert.ok(scene.told.includes("restored"));
  const world = scene.acceptWorld();
  await scene.settle();
  world.read();
  assert.deepEqual(world.numbers, [1, 2]);
});

Deno.test("open says who is missing, and leaves nothing behind", async () => {
  await using scene = await Scene.open();
  const open = (text: string) => NetTap.open(parseNetTap(text), scene.reactor, {}, never);
  await assert.rejects(
    open(`a=unix:${scene.folder}/a,unix:${scene.folder}/nobody`),
    (error) =>
      error instanceof TransportError && error.message.includes("nobody listens there") &&
      error.hint!.includes("-netdev stream"),
  );
  await assert.rejects(
    open(`a=unix:${scene.folder}/in,unix:${scene.folder}/out`),
    (error) => error instanceof TransportError && error.hint!.includes("another process"),
  );
  assert.throws(() => Deno.statSync(`${scene.folder}/a`), Deno.errors.NotFound);
});

Deno.test("bytes may be cut anywhere between QEMU and the tap", async () => {
  await using scene = await Scene.open();
  const conn = await Deno.connect({ transport: "unix", path: `${scene.folder}/in` });
  try {
    for (const byte of encodeFrame(frame(7, 40))) {
      await conn.write(Uint8Array.of(byte));
      await scene.settle(1);
    }
    await scene.settle();
    scene.world.read();
    assert.deepEqual(scene.world.numbers, [7]);
  } finally {
    conn.close();
  }
});
