import assert from "node:assert/strict";
import fc from "fast-check";
import { inParallel } from "../lab/program/in_parallel.ts";

Deno.test("every task is carried out once, in order, with at most so many under way", async () => {
  await fc.assert(fc.asyncProperty(
    fc.integer({ min: 1, max: 5 }),
    fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 12 }),
    async (jobs, delays) => {
      const begun: number[] = [];
      let now = 0;
      let most = 0;
      await inParallel(jobs, delays.keys(), async (task) => {
        begun.push(task);
        most = Math.max(most, ++now);
        for (let left = delays[task]; left > 0; left--) await Promise.resolve();
        now--;
      }, () => assert.fail());
      assert.deepEqual(begun, [...delays.keys()]);
      // Each of them begins before the first of them ends.
      assert.equal(most <= jobs, true);
      if (delays.length >= jobs && delays.every((each) => each > 0)) assert.equal(most, jobs);
    },
  ));
});

Deno.test("after a failure none is begun, those under way finish, and the first error is thrown", async () => {
  const slow = Promise.withResolvers<void>();
  const finished: string[] = [];
  const errors: string[] = [];
  const all = inParallel(3, ["late", "slow", "bad", "never"], async (task) => {
    if (task === "bad") throw new Error("bad");
    await slow.promise;
    if (task === "late") throw new Error("late");
    finished.push(task);
  }, (error, task) => errors.push(`${task}: ${(error as Error).message}`));
  await Promise.resolve();
  assert.deepEqual(errors, ["bad: bad"]);
  slow.resolve();
  await assert.rejects(all, /^Error: bad$/);
  assert.deepEqual(errors, ["bad: bad", "late: late"]);
  assert.deepEqual(finished, ["slow"]);
});
