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
  { inFlight = 0, extraMs = (_transaction: number): number => 0 } = {},
): Map<Treatment, number> {
  const used = new Map<Treatment, number>();
  const waiting: [number, number][] = [];
  for (let i = 1; i <= count; i++) {
    const bytes = 100_000 + (i * 7919 % 400_000);
    const treatment = policy.next();
    used.set(treatment, (used.get(treatment) ?? 0) + 1);
    const transaction = next++;
    policy.sent(transaction, bytes, 100);
    const took = commitMs(treatment, bytes, nsPerByte) + extraMs(i);
    waiting.push([transaction, 100 + took]);
    while (waiting.length > inFlight) policy.committed(...waiting.shift()!);
  }
  for (const [transaction, took] of waiting) policy.committed(transaction, took);
  return used;
}

let next = 1;

for (const inFlight of [0, 1, 5]) {
  Deno.test(`a slow link gets few bytes, a fast one little work, ${inFlight} in flight`, () => {
    const slow = new CompressionPolicy([BOTH, DELTA, PLAIN]);
    const onSlow = run(slow, 1000, 80, { inFlight });
    assert.equal(slow.best, BOTH);
    assert.ok(onSlow.get(BOTH)! > 850, `${onSlow.get(BOTH)}`);
    const fast = new CompressionPolicy([BOTH, DELTA, PLAIN]);
    const onFast = run(fast, 1000, 0.8, { inFlight });
    assert.equal(fast.best, DELTA);
    assert.ok(onFast.get(DELTA)! > 850, `${onFast.get(DELTA)}`);
    const local = new CompressionPolicy([BOTH, DELTA, PLAIN]);
    run(local, 1000, 0.05, { inFlight });
    assert.equal(local.best, PLAIN);
  });
}

Deno.test("a link that changes is noticed", () => {
  const policy = new CompressionPolicy([BOTH, DELTA]);
  run(policy, 500, 0.8);
  assert.equal(policy.best, DELTA);
  run(policy, 100, 80);
  assert.equal(policy.best, BOTH);
  run(policy, 1000, 0.8);
  assert.equal(policy.best, DELTA);
});

Deno.test("of treatments that take about equally long the one of fewer bytes is used", () => {
  const policy = new CompressionPolicy([DELTA, PLAIN]);
  // For 300,000 bytes 0.378 ms against 0.360 ms.
  const used = run(policy, 1000, 0.2);
  assert.equal(policy.best, DELTA);
  assert.ok(used.get(DELTA)! > 850, `${used.get(DELTA)}`);
});

Deno.test("a slow beginning decides nothing", () => {
  for (const slow of [10, 30, 50]) {
    const policy = new CompressionPolicy([BOTH, DELTA, PLAIN]);
    run(policy, 600, 0.8, { extraMs: (i) => i < slow ? 500 / i : 0 });
    assert.equal(policy.best, DELTA, `${slow}`);
    run(policy, 300, 80);
    assert.equal(policy.best, BOTH, `${slow}`);
  }
});

Deno.test("transactions that had to wait for something else decide nothing", () => {
  const policy = new CompressionPolicy([BOTH, DELTA, PLAIN]);
  const used = run(policy, 3000, 0.8, { extraMs: (i) => i * 7 % 11 < 2 ? 40 : 0 });
  assert.ok(used.get(DELTA)! > 2250, `${used.get(DELTA)}`);
});

Deno.test("where there is no choice, none is made", () => {
  const policy = new CompressionPolicy([BOTH]);
  assert.deepEqual([...run(policy, 100, 1)], [[BOTH, 100]]);
});

Deno.test("a peer that never answers does not keep it at its trials", () => {
  const policy = new CompressionPolicy([BOTH, DELTA]);
  for (let i = 0; i < 1000; i++) {
    policy.next();
    policy.sent(1e6 + i, 1000, 0);
  }
  assert.equal(policy.best, BOTH);
});
