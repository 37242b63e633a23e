import assert from "node:assert/strict";
import { UsageError } from "../lib/errors.ts";
import type { BenchContext } from "./bench_context.ts";
import type { BenchExperiment, BenchReport } from "../lib/report/bench_result.ts";
import { experimentsOf, runExperiments } from "./run_bench.ts";

const SETTINGS = { quick: true, full: false };

function experiment(name: string): BenchExperiment {
  return { name, about: "", conditions: {}, series: [], notes: [], cannotShow: [] };
}

async function run(
  experiments: Record<string, (context: BenchContext) => Promise<BenchExperiment>>,
  controller = new AbortController(),
) {
  const saved: BenchReport[] = [];
  const said: string[] = [];
  const { report, failure } = await runExperiments(
    Object.entries(experiments).map(([name, run]) => ({ name, run })),
    SETTINGS,
    {
      signal: controller.signal,
      say: (text) => said.push(text),
      save: (soFar) => saved.push(soFar),
    },
  );
  return { report, failure, saved, said };
}

Deno.test("all experiments but the long ones stand for none named and for all; others are refused", () => {
  assert.deepEqual(experimentsOf([]), experimentsOf(["all"]));
  assert.ok(!experimentsOf([]).includes("soak"));
  assert.deepEqual(experimentsOf(["soak"]), ["soak"]);
  assert.deepEqual(experimentsOf(["all", "soak"]), [...experimentsOf([]), "soak"]);
  assert.deepEqual(experimentsOf(["start", "start"]), ["start"]);
  assert.throws(() => experimentsOf(["nothing"]), UsageError);
});

Deno.test("one experiment that fails does not keep the others from running", async () => {
  const { report, failure, saved } = await run({
    a: () => Promise.reject(new Error("broken")),
    b: () => Promise.resolve(experiment("b")),
  });
  assert.deepEqual(report.experiments.map(({ name }) => name), ["b"]);
  assert.deepEqual(report.missing, [{ name: "a", why: "broken" }]);
  assert.equal((failure as Error).message, "broken");
  assert.deepEqual(saved[0].missing.map(({ name }) => name), ["a", "b"]);
});

Deno.test("an interruption keeps what was handed in, marked as partial", async () => {
  const controller = new AbortController();
  const reason = new Error("interrupted");
  const { report, failure, saved } = await run({
    a: () => Promise.resolve(experiment("a")),
    b: (context) => {
      context.keep({ ...experiment("b"), partial: "1 of 3 rounds" });
      controller.abort(reason);
      return Promise.reject(new Error("a child of it was killed"));
    },
    c: () => Promise.resolve(experiment("c")),
  }, controller);
  assert.equal(failure, reason);
  assert.deepEqual(report.experiments.map(({ name, partial }) => [name, partial]), [
    ["a", undefined],
    ["b", "1 of 3 rounds"],
  ]);
  assert.deepEqual(report.missing, [
    { name: "b", why: "interrupted" },
    { name: "c", why: "not run" },
  ]);
  // Had the process died at once: what was handed in is on disk.
  assert.deepEqual(saved[1].experiments.map(({ partial }) => partial), [
    undefined,
    "1 of 3 rounds",
  ]);
});

Deno.test("progress says which of several experiments it is", async () => {
  const { said } = await run({
    a: () => Promise.resolve(experiment("a")),
    b: (context) => {
      context.progress("b", 0, 2, "warming up");
      return Promise.resolve(experiment("b"));
    },
  });
  assert.deepEqual(said, ["2 of 2, b: 1 of 2 (warming up)"]);
});
