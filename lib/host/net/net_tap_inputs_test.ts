/** What the world sends to a guest that is about to be stopped for a checkpoint. */
import assert from "node:assert/strict";
import { frame, numberOf, type Peer, Scene } from "./testing/net_tap_scene.ts";
import { never } from "../system/never.ts";

/** A guest that has read whatever it was given. */
async function open(): Promise<{ scene: Scene; guest: Peer; told: number[] }> {
  const scene = await Scene.open({ holdFrames: true });
  const told: number[] = [];
  scene.tap.follow({ inputs: (frames) => void told.push(...frames.map(numberOf)) });
  return { scene, guest: await scene.connectGuest(), told };
}

function reads(scene: Scene, guest: Peer, done: () => boolean): Promise<void> {
  return scene.reactor.run(() => {
    guest.read();
    return done();
  }, never);
}

Deno.test("frames for a guest that is about to be stopped wait, and are given in order", async () => {
  const { scene, guest, told } = await open();
  await using _ = scene;
  scene.world.send(1, 2);
  await scene.reactor.run(() => told.length === 2, never);
  scene.tap.holdInputs();
  assert.equal(scene.tap.areInputsTaken(), false, "the guest has not read them");
  await reads(scene, guest, () => guest.frames.length === 2);
  assert.equal(scene.tap.areInputsTaken(), true);
  scene.world.send(3, 4);
  const { passedIn } = scene.tap.counters;
  await scene.reactor.run(() => scene.tap.counters.passedIn === passedIn + 2, never);
  await scene.settle();
  guest.read();
  assert.deepEqual(guest.numbers, [1, 2]);
  assert.equal(scene.tap.areInputsTaken(), true, "what waits is not QEMU's to take");
  scene.tap.giveInputs();
  scene.world.send(5);
  await reads(scene, guest, () => guest.frames.length === 5);
  assert.deepEqual(guest.numbers, [1, 2, 3, 4, 5]);
});

Deno.test("an input is told of when it is given: it belongs to the epoch behind the checkpoint", async () => {
  const { scene, guest, told } = await open();
  await using _ = scene;
  scene.world.send(1);
  await reads(scene, guest, () => told.length === 1 && guest.frames.length === 1);
  scene.tap.holdInputs();
  scene.world.send(2);
  await scene.reactor.run(() => scene.tap.counters.passedIn === 2, never);
  scene.tap.closeEpoch(1);
  assert.deepEqual(told, [1]);
  scene.tap.giveInputs();
  assert.deepEqual(told, [1, 2]);
});

Deno.test("an input that QEMU has not read when the epoch ends belongs to the next one too", async () => {
  const { scene, guest, told } = await open();
  await using _ = scene;
  scene.world.send(1, 2);
  await scene.reactor.run(() => told.length === 2, never);
  scene.tap.holdInputs();
  scene.tap.closeEpoch(1);
  assert.deepEqual(told, [1, 2, 1, 2]);
  scene.tap.giveInputs();
  scene.tap.closeEpoch(2);
  assert.deepEqual(told, [1, 2, 1, 2], "once is enough for a guest that reads nothing");
  guest.read();
  assert.deepEqual(guest.numbers, [1, 2]);
});

Deno.test("what there is no place for waits at the world's side, and nothing is lost", async () => {
  const { scene, guest } = await open();
  await using _ = scene;
  scene.tap.holdInputs();
  let sent = 0;
  // A socket that takes no more has stood still for a while.
  for (let quiet = 0; quiet < 10; quiet++) {
    const before = sent;
    while (scene.world.socket.send(frame(sent, 1000))) sent++;
    scene.world.socket.flush();
    if (sent > before) quiet = 0;
    await scene.settle(2);
  }
  const { passedIn } = scene.tap.counters;
  assert.ok(passedIn > 500 && passedIn < 1100, `${passedIn} frames are kept here`);
  assert.ok(sent > passedIn);
  scene.tap.giveInputs();
  await reads(scene, guest, () => {
    scene.world.socket.flush();
    return guest.frames.length === sent;
  });
  assert.deepEqual(guest.numbers, Array.from({ length: sent }, (_, i) => i));
});

Deno.test("after many frames QEMU must read on to have taken them, and frames stay whole", async () => {
  const { scene, guest, told } = await open();
  await using _ = scene;
  const many = Array.from({ length: 40 }, (_, i) => i);
  for (let round = 0; round < 3; round++) {
    const had = guest.frames.length;
    scene.world.send(...many);
    await reads(scene, guest, () => guest.frames.length === had + many.length);
    scene.tap.holdInputs();
    assert.equal(scene.tap.areInputsTaken(), false, "it is asked");
    assert.equal(scene.tap.areInputsTaken(), false, "once");
    // In one round something waits already, of which the byte is the first.
    if (round === 1) {
      scene.world.send(100);
      await scene.reactor.run(() => scene.tap.counters.passedIn === had + many.length + 1, never);
    }
    guest.read();
    assert.equal(scene.tap.areInputsTaken(), true);
    scene.tap.giveInputs();
    if (round === 1) await reads(scene, guest, () => guest.numbers.at(-1) === 100);
  }
  scene.world.send(7);
  await reads(scene, guest, () => guest.numbers.at(-1) === 7);
  assert.deepEqual(guest.numbers, [...many, ...many, 100, ...many, 7]);
  assert.ok(told.length > 0);
  assert.deepEqual(scene.faults, []);
});

Deno.test("a QEMU that does not read is waited for once, until it reads again", async () => {
  const { scene, guest, told } = await open();
  await using _ = scene;
  scene.world.send(1);
  await scene.reactor.run(() => told.length === 1, never);
  scene.tap.holdInputs();
  assert.equal(scene.tap.areInputsTaken(), false);
  scene.tap.giveUpOnInputs();
  assert.equal(scene.tap.areInputsTaken(), true);
  scene.tap.giveInputs();
  scene.world.send(2);
  await scene.reactor.run(() => told.length === 2, never);
  scene.tap.holdInputs();
  assert.equal(scene.tap.areInputsTaken(), true, "it has still read nothing");
  guest.read();
  assert.equal(scene.tap.areInputsTaken(), true);
  scene.tap.giveInputs();
  scene.world.send(3);
  await scene.reactor.run(() => told.length === 3, never);
  scene.tap.holdInputs();
  assert.equal(scene.tap.areInputsTaken(), false, "it reads again, and is waited for");
});

Deno.test("a QEMU that goes away while frames wait for it takes nothing along", async () => {
  const { scene, guest } = await open();
  await using _ = scene;
  scene.tap.holdInputs();
  scene.closePeer(guest);
  await scene.reactor.run(() => !scene.tap.counters.guestConnected, never);
  assert.equal(scene.tap.areInputsTaken(), true);
  scene.tap.giveInputs();
  const next = await scene.connectGuest();
  scene.world.send(9);
  await reads(scene, next, () => next.frames.length === 1);
  assert.deepEqual(next.numbers, [9]);
});
