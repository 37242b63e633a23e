/**
 * `deno task test`: runs the checks, in order, goes on after a failure, and ends with the line
 * `N passed, N failed`. With `--unit` (`deno task ok`) only what needs no VM; with `--long`, as
 * `.ci/run` has it, also the `*_long_e2e_test.ts`: every version and device model, the benchmarks,
 * foreign programs, drills of a broken kemari.
 *
 * A check that is no test (format, lint, types, the executable) counts as one. A test that skips
 * itself is named; where `CI` is set it counts as failed, since nothing may be skipped there.
 */

const ROOT = new URL("../", import.meta.url);

const SIGNALS = [
  { name: "SIGINT", number: 2 },
  { name: "SIGTERM", number: 15 },
  { name: "SIGHUP", number: 1 },
] as const;

/** How the tests of one run ended. */
export interface Tally {
  readonly passed: number;
  readonly failed: number;
  /** Names of the tests that skipped themselves. */
  readonly skipped: readonly string[];
}

/** How much of all tests a run has. */
export type Extent = "unit" | "usual" | "long";

/** What is run and judged by itself. */
export interface Step {
  readonly name: string;
  /** Arguments of the Deno that runs this. */
  readonly args: readonly string[];
  /** Whether the arguments run tests, which then are counted one by one. */
  readonly isTestRun: boolean;
}

/** Repository paths of the end-to-end tests, sorted. */
async function findEndToEndTests(folder = ""): Promise<string[]> {
  const found: string[] = [];
  for await (const entry of Deno.readDir(new URL(folder || ".", ROOT))) {
    const path = folder + entry.name;
    if (entry.isDirectory && ![".git", "dist", "node_modules"].includes(entry.name)) {
      found.push(...await findEndToEndTests(`${path}/`));
    } else if (entry.isFile && entry.name.endsWith("_e2e_test.ts")) {
      found.push(path);
    }
  }
  return found.sort();
}

/** What `deno task ok` runs. Types are checked once, those of the examples too. */
function unitSteps(e2eTests: readonly string[]): Step[] {
  const ignored = ["dist", ...e2eTests].join(",");
  return [
    { name: "format", args: ["fmt", "--check"], isTestRun: false },
    { name: "lint, with the layer rules", args: ["lint"], isTestRun: false },
    { name: "types", args: ["check", "--quiet", "--doc", "."], isTestRun: false },
    {
      name: "unit tests and doc examples",
      args: ["test", "-A", "--quiet", "--no-check", "--doc", `--ignore=${ignored}`, "."],
      isTestRun: true,
    },
  ];
}

/** One test at a time, since real VMs share the machine. */
function e2eStep(name: string, e2eTests: readonly string[]): Step {
  return { name, args: ["test", "-A", "--quiet", "--no-check", ...e2eTests], isTestRun: true };
}

/**
 * What a run consists of, in order.
 *
 * @param e2eTests Paths of all end-to-end tests; those that are left out are no unit tests either.
 */
export function stepsOf(extent: Extent, e2eTests: readonly string[]): Step[] {
  const steps = unitSteps(e2eTests);
  if (extent === "unit") return steps;
  const isLong = (path: string) => path.endsWith("_long_e2e_test.ts");
  steps.push(
    { name: "executable", args: ["run", "-A", ".ci/compile.ts"], isTestRun: false },
    e2eStep("end-to-end tests", e2eTests.filter((path) => !isLong(path))),
  );
  if (extent === "long") steps.push(e2eStep("long end-to-end tests", e2eTests.filter(isLong)));
  return steps;
}

/** @returns `undefined` for arguments that are not understood. */
export function extentOf(args: readonly string[]): Extent | undefined {
  if (args.length === 0) return "usual";
  if (args.length > 1) return undefined;
  return ({ "--unit": "unit", "--long": "long" } as const)[args[0]];
}

const XML_ENTITIES: Readonly<Record<string, string>> = {
  "&lt;": "<",
  "&gt;": ">",
  "&quot;": '"',
  "&apos;": "'",
  "&amp;": "&",
};

/**
 * Counts the test cases of a JUnit report; steps of a test are cases of their own.
 *
 * ```ts
 * import assert from "node:assert/strict";
 * const report = '<testcase name="a"></testcase><testcase name="b"><failure/></testcase>';
 * assert.deepEqual(tallyOf(report), { passed: 1, failed: 1, skipped: [] });
 * ```
 */
export function tallyOf(junit: string): Tally {
  let passed = 0;
  let failed = 0;
  const skipped: string[] = [];
  for (
    const [, attributes, body = ""] of junit.matchAll(
      /<testcase\b([^>]*?)(?:\/>|>([^]*?)<\/testcase>)/g,
    )
  ) {
    if (/<(failure|error)\b/.test(body)) failed++;
    else if (/<skipped\b/.test(body)) {
      const name = /\bname="([^"]*)"/.exec(attributes)?.[1] ?? "";
      skipped.push(name.replaceAll(/&\w+;/g, (entity) => XML_ENTITIES[entity] ?? entity));
    } else passed++;
  }
  return { passed, failed, skipped };
}

/**
 * Runs Deno, its output going where ours goes. The signal that `ended` aborts with ends it too.
 *
 * @returns Whether it went well. @throws the signal's name, when Deno has ended.
 */
export async function runDeno(args: readonly string[], ended: AbortSignal): Promise<boolean> {
  ended.throwIfAborted();
  const child = new Deno.Command(Deno.execPath(), {
    args: [...args],
    cwd: ROOT,
    stdin: "null",
    stdout: "inherit",
    stderr: "inherit",
  }).spawn();
  const end = () => {
    try {
      child.kill(ended.reason);
    } catch {
      // The terminal has sent it to both of us.
    }
  };
  ended.addEventListener("abort", end);
  const { success } = await child.status;
  ended.removeEventListener("abort", end);
  ended.throwIfAborted();
  return success;
}

/** Runs one step. */
async function runStep(step: Step, junitFile: string, ended: AbortSignal): Promise<Tally> {
  const [command, ...rest] = step.args;
  const args = step.isTestRun ? [command, `--junit-path=${junitFile}`, ...rest] : step.args;
  const success = await runDeno(args, ended);
  if (!step.isTestRun) return { passed: success ? 1 : 0, failed: success ? 0 : 1, skipped: [] };
  const report = await Deno.readTextFile(junitFile).catch(() => "");
  await Deno.remove(junitFile).catch(() => {});
  const tally = tallyOf(report);
  // A file that does not load, or a leak between tests, fails the run but no test case.
  return success || tally.failed > 0 ? tally : { ...tally, failed: 1 };
}

/** @param ended Says by which signal this is to end. */
async function runAll(steps: readonly Step[], ended: AbortSignal): Promise<Tally> {
  const folder = await Deno.makeTempDir({ prefix: "kemari-test-" });
  let passed = 0;
  let failed = 0;
  const skipped: string[] = [];
  try {
    for (const [index, step] of steps.entries()) {
      console.log(`\n[${index + 1}/${steps.length}] ${step.name}`);
      const startedMs = performance.now();
      const tally = await runStep(step, `${folder}/junit.xml`, ended);
      passed += tally.passed;
      failed += tally.failed;
      skipped.push(...tally.skipped);
      const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
      console.log(`${step.name}: ${tally.failed > 0 ? "FAILED" : "ok"} (${seconds} s)`);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
  return { passed, failed, skipped };
}

if (import.meta.main) {
  const extent = extentOf(Deno.args);
  if (extent === undefined) {
    console.error(`test: takes nothing, --unit or --long, not ${Deno.args.join(" ")}`);
    Deno.exit(2);
  }
  const steps = stepsOf(extent, await findEndToEndTests());
  const ended = new AbortController();
  for (const { name } of SIGNALS) Deno.addSignalListener(name, () => ended.abort(name));
  const tally = await runAll(steps, ended.signal).catch((error) => {
    const signal = SIGNALS.find(({ name }) => name === error);
    if (signal === undefined) throw error;
    console.log(`\nended by ${signal.name}`);
    return Deno.exit(128 + signal.number);
  });
  const mayNotSkip = Boolean(Deno.env.get("CI"));
  console.log("");
  for (const name of tally.skipped) console.log(`SKIPPED: ${name}`);
  if (mayNotSkip && tally.skipped.length > 0) {
    console.log("CI is set: a skipped test counts as failed");
  }
  const failed = tally.failed + (mayNotSkip ? tally.skipped.length : 0);
  console.log(`${tally.passed} passed, ${failed} failed`);
  Deno.exit(failed > 0 ? 1 : 0);
}
