/**
 * `kemari bench start`: how long the executable takes to answer `send --help`.
 *
 * Every sync of a snapshot loop and every `migrate "exec:kemari send …"` takes this time once.
 * Results: of some 80 ms, the launcher's shell takes 10 and the runtime's own start 30; the rest is
 * reading the bundle, so a command's modules are imported only when the command runs.
 */
import { TransportError } from "../lib/errors.ts";
import type { BenchExperiment } from "../lib/report/bench_result.ts";
import type { BenchContext } from "./bench_context.ts";
import { findExecutable, sourceFolder } from "../lib/lab/program/kemari_program.ts";

const RUNS = 40;
const QUICK_RUNS = 5;
const TARGET_MS = 150;

/**
 * @throws {TransportError} There is no executable and none can be made, or the executable fails.
 */
export async function benchStart(context: BenchContext): Promise<BenchExperiment> {
  const { path, fresh } = findExecutable() ?? await makeExecutable(context);
  const samples: number[] = [];
  // The first start may unpack the runtime.
  for (let run = -1; run < (context.quick ? QUICK_RUNS : RUNS); run++) {
    context.signal.throwIfAborted();
    const begun = performance.now();
    const { success } = await new Deno.Command(path, {
      args: ["send", "--help"],
      stdin: "null",
      stdout: "null",
      stderr: "inherit",
      signal: context.signal,
    }).output();
    const elapsedMs = performance.now() - begun;
    context.signal.throwIfAborted();
    if (!success) throw new TransportError(path, "spawn", "send --help failed");
    if (run >= 0) samples.push(elapsedMs);
  }
  return {
    name: "start",
    about: "dist/kemari send --help, process start to exit, files in the page cache",
    conditions: {},
    series: [{
      name: "send --help",
      unit: "ms",
      samples,
      target: { kind: "at-most", value: TARGET_MS },
    }],
    notes: fresh ? [] : ["dist/kemari is older than the sources: deno task compile"],
    cannotShow: [],
  };
}

async function makeExecutable(context: BenchContext): Promise<{ path: string; fresh: boolean }> {
  const folder = sourceFolder();
  if (folder !== undefined) {
    context.say("start: making dist/kemari");
    await new Deno.Command(Deno.execPath(), {
      args: ["task", "compile"],
      cwd: folder,
      stdin: "null",
      stdout: "null",
      stderr: "inherit",
      signal: context.signal,
    }).output();
    context.signal.throwIfAborted();
  }
  const made = findExecutable();
  if (made !== undefined) return made;
  throw new TransportError("dist/kemari", "spawn", "there is no executable to start", {
    hint: "run this from the sources' folder, after deno task compile",
  });
}
