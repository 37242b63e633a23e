/**
 * `deno task test` (and, with `--unit`, `deno task ok`): runs every check there is, in order, goes
 * on after a failure, and ends with the line `N passed, N failed`.
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

interface Step {
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

/** What `deno task ok` runs. */
function unitSteps(e2eTests: readonly string[]): Step[] {
  const ignored = ["dist", ...e2eTests].join(",");
  return [
    { name: "format", args: ["fmt", "--check"], isTestRun: false },
    { name: "lint, with the layer rules", args: ["lint"], isTestRun: false },
    { name: "types", args: ["check", "--quiet", "."], isTestRun: false },
    {
      name: "unit tests and doc examples",
      args: ["test", "-A", "--quiet", "--doc", `--ignore=${ignored}`, "."],
      isTestRun: true,
    },
  ];
}

/** What `deno task test` runs after that: one test at a time, since real VMs share the machine. */
function e2eSteps(e2eTests: readonly string[]): Step[] {
  return [
    { name: "executable", args: ["run", "-A", ".ci/compile.ts"], isTestRun: false },
    {
      name: "end-to-end tests",
      args: ["test", "-A", "--quiet", "--no-check", ...e2eTests],
      isTestRun: true,
    },
  ];
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
  const e2eTests = await findEndToEndTests();
  const steps = unitSteps(e2eTests);
  if (!Deno.args.includes("--unit")) steps.push(...e2eSteps(e2eTests));
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
