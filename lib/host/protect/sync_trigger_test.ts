import assert from "node:assert/strict";
import { Reactor } from "../system/reactor.ts";
import { SyncTrigger } from "./sync_trigger.ts";
import { never } from "../system/never.ts";

async function withTrigger(
  minIntervalMs: number,
  work: (trigger: SyncTrigger, asked: () => number, reactor: Reactor) => Promise<void>,
): Promise<void> {
  const reactor = new Reactor();
  let asked = 0;
  const trigger = new SyncTrigger(reactor, minIntervalMs, () => asked++);
  try {
    await work(trigger, () => asked, reactor);
  } finally {
    trigger.ended();
    reactor.close();
  }
}

Deno.test("requests until the checkpoint begins are one", () =>
  withTrigger(1, (trigger, asked) => {
    trigger.request();
    trigger.request();
    assert.equal(asked(), 1);
    return Promise.resolve();
  }));

Deno.test("what is held after the VM stopped asks again, once the VM runs", () =>
  withTrigger(0, (trigger, asked) => {
    trigger.request();
    trigger.begun();
    trigger.closed();
    trigger.request();
    assert.equal(asked(), 1, "never inside a checkpoint");
    trigger.ended();
    assert.equal(asked(), 2);
    return Promise.resolve();
  }));

Deno.test("what was held before the VM stopped does not ask again", () =>
  withTrigger(0, (trigger, asked) => {
    trigger.request();
    trigger.begun();
    trigger.request();
    trigger.closed();
    trigger.ended();
    assert.equal(asked(), 1);
    assert.equal(trigger.pending, false);
    return Promise.resolve();
  }));

Deno.test("the least interval is kept, and nothing is forgotten in it", () =>
  withTrigger(40, async (trigger, asked, reactor) => {
    const start = performance.now();
    for (let round = 0; round < 3; round++) {
      trigger.request();
      await reactor.run(() => asked() === round + 1, never);
      trigger.begun();
      trigger.closed();
      trigger.ended();
    }
    assert.ok(performance.now() - start >= 79);
  }));

Deno.test("a checkpoint whose end is never heard of does not silence the trigger for ever", () =>
  withTrigger(0, async (trigger, asked, reactor) => {
    trigger.request();
    trigger.begun();
    trigger.closed();
    trigger.request();
    await reactor.run(() => asked() === 2, never);
  }));

Deno.test("a request inside a checkpoint lets the runtime read QMP until the VM runs", () =>
  withTrigger(0, (trigger, asked, reactor) => {
    let awaited = 0;
    reactor.awaitRuntime = () => {
      awaited++;
      return () => awaited--;
    };
    trigger.request();
    assert.equal(awaited, 0, "nothing has to be read before the checkpoint comes");
    trigger.begun();
    trigger.closed();
    assert.equal(awaited, 0, "nobody waits");
    trigger.request();
    trigger.request();
    assert.equal(awaited, 1);
    trigger.ended();
    assert.deepEqual([awaited, asked()], [0, 2]);
    trigger.begun();
    trigger.request();
    assert.equal(awaited, 1);
    trigger.closed();
    assert.equal(awaited, 0, "the request is taken care of");
    return Promise.resolve();
  }));
