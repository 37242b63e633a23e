import { UsageError } from "../lib/errors.ts";
import {
  BENCH_FORMAT,
  BENCH_VERSION,
  type BenchExperiment,
  type BenchReport,
} from "../lib/report/bench_result.ts";
import { SOFTWARE } from "../lib/host/software.ts";
import type { BenchContext } from "./bench_context.ts";
import { benchColo } from "./colo.ts";
import { sourceFolder } from "./kemari_program.ts";
import { benchStart } from "./start.ts";
import { benchStream } from "./stream.ts";

/** Every experiment, in the order in which all of them are run. */
const EXPERIMENTS: Readonly<Record<string, (context: BenchContext) => Promise<BenchExperiment>>> = {
  start: benchStart,
  stream: benchStream,
  colo: benchColo,
};

export const EXPERIMENT_NAMES: readonly string[] = Object.keys(EXPERIMENTS);

/**
 * Runs experiments one after another.
 *
 * @param names Which; all of them if empty.
 * @throws {UsageError} There is no experiment of that name.
 */
export async function runBench(
  names: readonly string[],
  context: BenchContext,
): Promise<BenchReport> {
  for (const name of names) {
    if (!Object.hasOwn(EXPERIMENTS, name)) {
      throw new UsageError(`no experiment is called "${name}"`, {
        hint: `there are ${EXPERIMENT_NAMES.join(", ")}`,
      });
    }
  }
  const startedAt = new Date().toISOString();
  const commit = await readCommit();
  const experiments: BenchExperiment[] = [];
  for (const name of names.length > 0 ? names : EXPERIMENT_NAMES) {
    try {
      experiments.push(await EXPERIMENTS[name](context));
    } catch (error) {
      // What an interrupted child or VM complains of is not the reason.
      context.signal.throwIfAborted();
      throw error;
    }
  }
  return {
    format: BENCH_FORMAT,
    version: BENCH_VERSION,
    kemari: SOFTWARE.replace(/^kemari /, ""),
    commit,
    startedAt,
    quick: context.quick,
    machine: {
      cpu: cpuModel(),
      cores: navigator.hardwareConcurrency,
      memoryBytes: Deno.systemMemoryInfo().total,
      kernel: Deno.osRelease(),
      deno: Deno.version.deno,
    },
    experiments,
  };
}

async function readCommit(): Promise<string | null> {
  const cwd = sourceFolder();
  if (cwd === undefined) return null;
  const git = async (...args: string[]) => {
    const { success, stdout } = await new Deno.Command("git", { args, cwd, stderr: "null" })
      .output();
    return success ? new TextDecoder().decode(stdout).trim() : undefined;
  };
  try {
    const commit = await git("rev-parse", "--short=12", "HEAD");
    if (commit === undefined) return null;
    return await git("status", "--porcelain", "--", "lib", "main.ts") === ""
      ? commit
      : `${commit}+`;
  } catch {
    return null;
  }
}

function cpuModel(): string {
  return /^model name\s*: (.*)$/m.exec(Deno.readTextFileSync("/proc/cpuinfo"))?.[1] ?? "unknown";
}
