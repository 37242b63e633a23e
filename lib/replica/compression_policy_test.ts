import assert from "node:assert/strict";
import { CompressionPolicy, type Treatment } from "./compression_policy.ts";

const PLAIN: Treatment = { delta: false, pack: false, dedup: false };
const DELTA: Treatment = { delta: true, pack: false, dedup: true };
const BOTH: Treatment = { delta: true, pack: true, dedup: true };

/** A link and two ends: how long a transaction takes, by what is done to it. */
function commitMs(treatment: Treatment, bytes: number, nsPerByte: number): number {
  const work = (treatment.delta ? 0.2 : 0) + (treatment.pack ? 2 : 0);
  const left = (treatment.delta ? 0.3 : 1) * (treatment.pack ? 0.3 : 1);
  return 0.3 + bytes * (work + left * nsPerByte) / 1e6;
}

/** Lets transactions pass. @returns how many were treated how. */
function run(
  policy: CompressionPolicy,
  count: number,
  nsPerByte: number,
  inFlight = 0,
): Map<Treatment, number> {
  const used = new Map<Treatment, number>();
  const waiting: [number, number][] = [];
  for (let i = 1; i <= count; i++) {
    const bytes = 100_000 + (i * 7919 % 400_000);
    const treatment = policy.next();
    used.set(treatment, (used.get(treatment) ?? 0) + 1);
    const transaction = next++;
    policy.sent(transaction, bytes, 100);
    waiting.push([transaction, 100 + commitMs(treatment, bytes, nsPerByte)]);
    while (waiting.length > inFlight) policy.committed(...waiting.shift()!);
  }
  for (const [transaction, took] of waiting) policy.committed(transaction, took);
  return used;
}

let next = 1;

for (const inFlight of [0, 1, 5]) {
  Deno.test(`a slow link gets few bytes, a fast one little work, ${inFlight} in flight`, () => {
    const slow = new CompressionPolicy([DELTA, BOTH, PLAIN]);
    const onSlow = run(slow, 1000, 80, inFlight);
    assert.equal(slow.best, BOTH);
    assert.ok(onSlow.get(BOTH)! > 850, `${onSlow.get(BOTH)}`);
    const fast = new CompressionPolicy([DELTA, BOTH, PLAIN]);
    const onFast = run(fast, 1000, 0.8, inFlight);
    assert.equal(fast.best, DELTA);
    assert.ok(onFast.get(DELTA)! > 850, `${onFast.get(DELTA)}`);
    const local = new CompressionPolicy([DELTA, BOTH, PLAIN]);
    run(local, 1000, 0.05, inFlight);
    assert.equal(local.best, PLAIN);
  });
}

Deno.test("a link that changes is noticed", () => {
  const policy = new CompressionPolicy([DELTA, BOTH]);
  run(policy, 500, 0.8);
  assert.equal(policy.best, DELTA);
  run(policy, 800, 80);
  assert.equal(policy.best, BOTH);
  run(policy, 800, 0.8);
  assert.equal(policy.best, DELTA);
});

Deno.test("where there is no choice, none is made", () => {
  const policy = new CompressionPolicy([BOTH]);
  assert.deepEqual([...run(policy, 100, 1)], [[BOTH, 100]]);
});

Deno.test("a peer that never answers does not keep it at its trials", () => {
  const policy = new CompressionPolicy([DELTA, BOTH]);
  for (let i = 0; i < 1000; i++) {
    policy.next();
    policy.sent(1e6 + i, 1000, 0);
  }
  assert.equal(policy.best, DELTA);
});
