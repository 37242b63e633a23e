import assert from "node:assert/strict";
import { EventLatency } from "./event_latency.ts";

function p50s(latency: EventLatency): readonly number[] {
  const { trigger, commit, release } = latency.summary();
  return [trigger.p50, commit.p50, release.p50];
}

Deno.test("the time of an epoch's first event is split at its trigger, its ACK and its release", () => {
  const latency = new EventLatency();
  latency.triggered(50);
  latency.held(100);
  latency.held(101);
  latency.triggered(103);
  latency.triggered(104);
  latency.closed(7, 110);
  latency.committed(7, 123);
  latency.released(7, 124);
  assert.deepEqual(p50s(latency), [3, 20, 1]);
});

Deno.test("several epochs are in flight, and an epoch without events counts for nothing", () => {
  const latency = new EventLatency();
  latency.held(0);
  latency.closed(1, 10);
  latency.closed(2, 11);
  latency.held(12);
  latency.closed(3, 20);
  latency.committed(2, 30);
  latency.committed(3, 40);
  latency.released(3, 41);
  const { trigger, commit, release } = latency.summary();
  assert.deepEqual([trigger.count, commit.count, release.count], [2, 2, 2]);
  assert.deepEqual([trigger.max, commit.max, release.max], [10, 20, 11]);
});

Deno.test("what a lost secondary leaves is not counted", () => {
  const latency = new EventLatency();
  latency.held(0);
  latency.closed(1, 1);
  latency.held(2);
  latency.reset();
  latency.committed(1, 3);
  latency.closed(2, 4);
  assert.equal(latency.summary().commit.count, 0);
});
