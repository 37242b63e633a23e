import assert from "node:assert/strict";
import type { QmpEvent } from "../../qmp/session.ts";
import type { SenderLink } from "../link/sender_link.ts";
import { Reactor } from "../system/reactor.ts";
import type { PrimaryTapDevices } from "../taps/primary_tap_devices.ts";
import type { QmpClient } from "../vm/qmp_client.ts";
import { VmWatch } from "../vm/vm_watch.ts";
import { CheckpointRequests } from "./checkpoint_requests.ts";

/** Requests of a VM whose taps, dialogue and QEMU are the test's. */
function scene(syncOn: readonly ("net" | "disk")[] = ["net"], prepare?: () => Promise<void>) {
  const done: string[] = [];
  const answers: PromiseWithResolvers<void>[] = [];
  let hear: (event: QmpEvent) => void = () => {};
  const reactor = new Reactor();
  const failed: unknown[] = [];
  reactor.fail = (error) => void failed.push(error);
  const qmp = { onEvent: (listener: typeof hear) => hear = listener };
  const dialogue = { inCheckpoint: false, vmStopped: () => void done.push("vm stopped") };
  const link = { primary: { dialogue }, vmResumed: () => void done.push("vm resumed") };
  const taps = {
    triggered: () => {},
    vmStops: () => void done.push("taps stop"),
    vmRuns: () => void done.push("taps run"),
  } as unknown as PrimaryTapDevices;
  const requests = new CheckpointRequests({
    ...{ reactor, taps, settings: { syncOn, syncMinIntervalMs: 0 }, peer: "peer" },
    watch: new VmWatch(qmp as unknown as QmpClient),
    prepare,
    ask: () => {
      done.push("ask");
      answers.push(Promise.withResolvers<void>());
      return answers.at(-1)!.promise;
    },
  });
  return {
    ...{ done, answers, dialogue, taps, requests, reactor, failed },
    begin: () => requests.begin(link as unknown as SenderLink),
    says: (name: string) => hear({ name, data: {} }),
    [Symbol.dispose]() {
      requests.trigger.ended();
      reactor.close();
    },
  };
}

Deno.test("output that is held in a session asks, of the kinds that are to", () => {
  using s = scene();
  s.taps.onHeld("net");
  assert.deepEqual(s.done, [], "without a session QEMU's settings are the operator's");
  s.begin();
  s.taps.onHeld("disk");
  assert.deepEqual(s.done, []);
  s.taps.onHeld("net");
  assert.deepEqual(s.done, ["ask"]);
});

Deno.test("so much that waits asks in any case", () => {
  using s = scene([]);
  s.begin();
  s.taps.onHeld("net");
  s.taps.onFull();
  assert.deepEqual(s.done, ["ask"]);
});

Deno.test("a QEMU that is in a checkpoint, or has not answered, is not asked until its VM runs", () => {
  using s = scene();
  s.begin();
  s.dialogue.inCheckpoint = true;
  s.taps.onHeld("net");
  assert.deepEqual(s.done, []);
  s.dialogue.inCheckpoint = false;
  s.says("RESUME");
  assert.deepEqual(s.done.splice(0), ["taps run", "vm resumed", "ask"]);
  s.requests.trigger.ended();
  s.taps.onHeld("net");
  assert.deepEqual(s.done, [], "it was asked, and has not answered");
  s.says("RESUME");
  assert.deepEqual(s.done, ["taps run", "vm resumed", "ask"]);
});

Deno.test("whoever stops the VM, the taps and the session know it", () => {
  using s = scene();
  s.says("STOP");
  assert.deepEqual(s.done.splice(0), ["taps stop"], "there is no session");
  s.begin();
  s.says("STOP");
  s.says("RESUME");
  assert.deepEqual(s.done, ["taps stop", "vm stopped", "taps run", "vm resumed"]);
});

Deno.test("a refusal ends the session that it is of, and no later one", async () => {
  using s = scene();
  s.begin();
  s.taps.onHeld("net");
  s.answers[0].reject(new Error("no"));
  await Promise.resolve().then(() => {}).then(() => {});
  assert.equal(s.failed.length, 1);
  s.says("RESUME");
  s.taps.onHeld("net");
  s.requests.rest();
  s.answers[1].reject(new Error("no"));
  await new Promise((resolve) => setTimeout(resolve, 1));
  assert.equal(s.failed.length, 1);
  s.taps.onOverflow("disk", 1);
  assert.equal(s.failed.length, 1);
  s.begin();
  s.taps.onOverflow("disk", 1);
  assert.match((s.failed[1] as Error).message, /disk/);
});

/** Waits for what a promise's end has others do. */
const settled = () => new Promise((resolve) => setTimeout(resolve, 1));

/** Requests whose first has to wait for the test. */
function unprepared() {
  const prepared = Promise.withResolvers<void>();
  let prepares = 0;
  const s = scene(["net"], () => {
    prepares++;
    return prepared.promise;
  });
  s.begin();
  s.taps.onHeld("net");
  return { s, prepared, prepares: () => prepares };
}

Deno.test("the first request waits for its preparation, the others do not", async () => {
  const { s, prepared, prepares } = unprepared();
  using _ = s;
  assert.deepEqual(s.done, []);
  prepared.resolve();
  await settled();
  assert.deepEqual(s.done, ["ask"]);
  s.answers[0].resolve();
  s.says("RESUME");
  s.taps.onHeld("net");
  assert.deepEqual(s.done.filter((step) => step === "ask"), ["ask", "ask"]);
  assert.equal(prepares(), 1);
});

Deno.test("a VM that runs again while the first request is prepared has QEMU asked once", async () => {
  const { s, prepared, prepares } = unprepared();
  using _ = s;
  // QEMU's own timer was quicker.
  s.taps.onCheckpoint();
  s.says("RESUME");
  s.taps.onHeld("net");
  prepared.resolve();
  await settled();
  assert.deepEqual(s.done.filter((step) => step === "ask"), ["ask"]);
  assert.equal(prepares(), 1);
});

Deno.test("a QEMU that has begun a checkpoint, or has lost its session, while a request was prepared is not asked", async () => {
  for (const change of ["a checkpoint", "the session's end"]) {
    const { s, prepared } = unprepared();
    using _ = s;
    if (change === "a checkpoint") s.dialogue.inCheckpoint = true;
    else s.requests.rest();
    prepared.resolve();
    await settled();
    assert.deepEqual(s.done, [], change);
    // The next one is.
    s.dialogue.inCheckpoint = false;
    s.begin();
    s.says("RESUME");
    s.taps.onHeld("net");
    assert.equal(s.done.at(-1), "ask", change);
  }
});

Deno.test("an answer that is late says nothing of the request behind it", async () => {
  using s = scene();
  s.begin();
  s.taps.onHeld("net");
  s.says("RESUME");
  s.taps.onHeld("net");
  s.answers[0].resolve();
  await settled();
  s.requests.trigger.ended();
  s.taps.onHeld("net");
  assert.equal(s.answers.length, 2, "the second one has not been answered");
});
