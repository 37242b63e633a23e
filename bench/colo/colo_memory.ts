/**
 * How much memory QEMU keeps for every checkpoint: its private memory before and after some
 * thousands of checkpoints.
 *
 * Results: QEMU 11.1 describes its device state (vmdesc) at every checkpoint, does not send the
 * description, and keeps it in memory: 97 kB for a `pc` and 46 for a `q35`. With the machine
 * property `suppress-vmdesc` set before `migrate` it keeps 0.1. With fewer than a thousand
 * checkpoints, the steps of the allocator hide this.
 */
import type { BenchSeries } from "../../lib/report/bench_result.ts";
import type { BenchContext } from "../bench_context.ts";
import { measureMemory } from "./colo_round.ts";
import { type ColoSetup, type ColoVm, protectedVm, sentVm } from "./colo_vm.ts";

const MACHINES = ["pc", "q35"] as const;
const MEMORY_MIB = 64;
const INTERVAL_MS = 1;
const WARM_UP_CHECKPOINTS = 500;
const COUNT = { quick: 2000, usual: 5000, full: 20_000 };
const ROUNDS = { quick: 1, usual: 2, full: 3 };
/** Checkpoints take milliseconds; on a busy machine, a smaller number must be enough. */
const SECONDS_PER_CHECKPOINT = 0.02;
const TARGET_KB = 2;

/**
 * The command that keeps the VM: `protect`, or `send`, which leaves QEMU's settings at their
 * defaults.
 */
const KEEPERS: Readonly<
  Record<"protect" | "send", (setup: ColoSetup, stack: AsyncDisposableStack) => Promise<ColoVm>>
> = {
  protect: (setup, stack) => protectedVm({ ...setup, mode: "colo", commit: "async" }, stack),
  send: sentVm,
};
type Keeper = keyof typeof KEEPERS;

/** @param setup QEMU, devices and kemari; this function sets machine, memory, guest and pace. */
export async function measureKeptMemory(
  context: BenchContext,
  setup: ColoSetup,
): Promise<BenchSeries[]> {
  const size = context.quick ? "quick" : context.full ? "full" : "usual";
  const ways = MACHINES.flatMap((machine) =>
    (["protect", "send"] as const).map((keeper) => ({ machine, keeper, kB: [] as number[] }))
  );
  const rounds = context.rounds ?? ROUNDS[size];
  for (let step = 0; step < rounds * ways.length; step++) {
    const round = Math.floor(step / ways.length);
    const { machine, keeper, kB } = ways[(step + round) % ways.length];
    const what = `memory that QEMU keeps, ${machine}, kemari ${keeper}`;
    context.progress("colo", step, rounds * ways.length, what);
    kB.push(await keptKb({ ...setup, machine }, keeper, COUNT[size]));
  }
  return ways.map(({ machine, keeper, kB }) => ({
    name: `kept by QEMU for each checkpoint, ${machine}, kemari ${keeper}`,
    unit: "kB",
    samples: kB,
    ...(keeper === "protect" ? { target: { kind: "at-most", value: TARGET_KB } } : {}),
  }));
}

/** Measures a VM of 64 MB that runs only its firmware: its memory contents do not change. */
export async function keptKb(setup: ColoSetup, keeper: Keeper, count: number): Promise<number> {
  const { signal } = setup;
  await using stack = new AsyncDisposableStack();
  const idle = {
    ...setup,
    guest: undefined,
    memoryMiB: MEMORY_MIB,
    intervalMs: INTERVAL_MS,
    link: "unix" as const,
  };
  const kept = await KEEPERS[keeper](idle, stack);
  const measure = (checkpoints: number) =>
    measureMemory(kept, checkpoints, checkpoints * SECONDS_PER_CHECKPOINT, signal);
  await measure(Math.min(WARM_UP_CHECKPOINTS, count));
  return (await measure(count)).keptBytes / 1e3;
}
