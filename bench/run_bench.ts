import { UsageError } from "../lib/errors.ts";
import {
  BENCH_FORMAT,
  BENCH_VERSION,
  type BenchExperiment,
  type BenchReport,
} from "../lib/report/bench_result.ts";
import { SOFTWARE } from "../lib/host/system/software.ts";
import type { BenchContext, BenchSettings } from "./bench_context.ts";
import { ProgressClock } from "../lib/lab/program/progress_clock.ts";
import { benchActivation } from "./activation.ts";
import { benchBitmap } from "./bitmap.ts";
import { benchColo } from "./colo/colo.ts";
import { benchColoKey } from "./colo/colo_key.ts";
import { benchSoak } from "./colo/soak.ts";
import { benchCompress } from "./compress.ts";
import { benchCompressLive } from "./compress_live.ts";
import { benchDisk } from "./disk.ts";
import { benchIozone } from "./iozone.ts";
import { sourceFolder } from "../lib/lab/program/kemari_program.ts";
import { benchNet } from "./net.ts";
import { benchStart } from "./start.ts";
import { benchStream } from "./stream.ts";
import { benchStreamKey } from "./stream_key.ts";
import { benchSyncs } from "./syncs.ts";
import { benchTraffic } from "./traffic.ts";
import { benchWritev } from "./writev.ts";

type Experiments = Readonly<Record<string, (context: BenchContext) => Promise<BenchExperiment>>>;

/** Every experiment, in the order in which all of them are run. */
const EXPERIMENTS: Experiments = {
  start: benchStart,
  bitmap: benchBitmap,
  compress: benchCompress,
  writev: benchWritev,
  stream: (context) => context.key ? benchStreamKey(context) : benchStream(context),
  disk: benchDisk,
  net: benchNet,
  colo: (context) => context.key ? benchColoKey(context) : benchColo(context),
  activation: benchActivation,
  iozone: benchIozone,
  "compress-live": benchCompressLive,
  traffic: benchTraffic,
  syncs: benchSyncs,
};

/** Experiments that run only if they are named: they take too long. */
const LONG_EXPERIMENTS: Experiments = { soak: benchSoak };

/** Stands for all experiments except the long ones. */
export const ALL = "all";

export const EXPERIMENT_NAMES: readonly string[] = Object.keys(EXPERIMENTS);

/** Parts that a run needs besides its settings. */
export interface BenchHost {
  readonly signal: AbortSignal;
  say(text: string): void;
  /** Called with all results so far, after every experiment and for every partial result. */
  save(report: BenchReport): void;
}

/**
 * The experiments of a list of names; an empty list and `all` stand for all except the long ones.
 */
export function experimentsOf(names: readonly string[]): readonly string[] {
  const long = Object.keys(LONG_EXPERIMENTS);
  const known = [...EXPERIMENT_NAMES, ...long];
  for (const name of names) {
    if (name !== ALL && !known.includes(name)) {
      throw new UsageError(`no experiment is called "${name}"`, {
        hint: `there are ${known.join(", ")}, and ${ALL}`,
      });
    }
  }
  if (names.length > 0 && !names.includes(ALL)) return [...new Set(names)];
  return [...EXPERIMENT_NAMES, ...long.filter((name) => names.includes(name))];
}

/** An experiment and its name. */
export interface NamedExperiment {
  readonly name: string;
  readonly run: (context: BenchContext) => Promise<BenchExperiment>;
}

/** The report, and the first failure or interruption if there was one. */
export interface BenchOutcome {
  readonly report: BenchReport;
  readonly failure?: unknown;
}

/**
 * Runs experiments by name, see {@link runExperiments}.
 *
 * @param names Which; all of them if empty.
 * @throws {UsageError} There is no experiment of that name.
 */
export async function runBench(
  names: readonly string[],
  settings: BenchSettings,
  host: BenchHost,
): Promise<BenchOutcome> {
  const all = { ...EXPERIMENTS, ...LONG_EXPERIMENTS };
  const wanted = experimentsOf(names).map((name) => ({ name, run: all[name] }));
  return await runExperiments(wanted, settings, host);
}

/**
 * Runs experiments one after another. After a failure the others still run; after an interruption
 * they do not, and the report says what is missing.
 */
export async function runExperiments(
  wanted: readonly NamedExperiment[],
  settings: BenchSettings,
  host: BenchHost,
): Promise<BenchOutcome> {
  const { signal } = host;
  const empty = await emptyReport(settings);
  const experiments: BenchExperiment[] = [];
  const missing: { name: string; why: string }[] = [];
  let part: BenchExperiment | undefined;
  let failure: unknown;
  const reportNow = (rest: readonly NamedExperiment[]): BenchReport => ({
    ...empty,
    experiments: part === undefined ? [...experiments] : [...experiments, part],
    missing: [...missing, ...rest.map(({ name }) => ({ name, why: "not run" }))],
  });
  for (const [index, { name, run }] of wanted.entries()) {
    const rest = wanted.slice(index + 1);
    const clock = new ProgressClock(wanted.length > 1 ? `${index + 1} of ${wanted.length}, ` : "");
    const context: BenchContext = {
      ...settings,
      signal,
      say: host.say,
      progress: (of, done, total, what) => host.say(clock.tell(of, done, total, what)),
      keep(soFar) {
        part = soFar;
        host.save(reportNow(rest));
      },
    };
    try {
      signal.throwIfAborted();
      experiments.push(await run(context));
      part = undefined;
    } catch (error) {
      // Errors of an interrupted child or VM are not the reason.
      const reason = signal.aborted ? signal.reason : error;
      failure ??= reason;
      if (part !== undefined) experiments.push(part);
      part = undefined;
      missing.push({ name, why: reason instanceof Error ? reason.message : String(reason) });
    }
    host.save(reportNow(rest));
    if (signal.aborted) return { report: reportNow(rest), failure };
  }
  return { report: reportNow([]), failure };
}

async function emptyReport({ quick, full }: BenchSettings): Promise<BenchReport> {
  const cpuInfo = Deno.readTextFileSync("/proc/cpuinfo");
  return {
    format: BENCH_FORMAT,
    version: BENCH_VERSION,
    kemari: SOFTWARE.replace(/^kemari /, ""),
    commit: await readCommit(),
    startedAt: new Date().toISOString(),
    quick,
    full,
    machine: {
      cpu: /^model name\s*: (.*)$/m.exec(cpuInfo)?.[1] ?? "unknown",
      cores: navigator.hardwareConcurrency,
      memoryBytes: Deno.systemMemoryInfo().total,
      kernel: Deno.osRelease(),
      deno: Deno.version.deno,
      // VMs of the fixtures are started with TCG, even if the machine has KVM.
      accelerator: "tcg",
      virtual: /^flags\s*:.*\bhypervisor\b/m.test(cpuInfo),
    },
    experiments: [],
    missing: [],
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
