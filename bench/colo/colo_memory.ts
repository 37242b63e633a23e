/**
 * What QEMU keeps of every checkpoint: the memory that it has for itself, before and after some
 * thousands of them.
 *
 * Learned: QEMU 11.1 goes on describing its device state (vmdesc) at every checkpoint, sends none of
 * it and keeps all of it, 97 kB for a `pc` and 46 for a `q35`. With the machine property
 * `suppress-vmdesc` set before `migrate` it keeps 0.1. Fewer than a thousand checkpoints show the
 * allocator's steps instead.
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
/** Checkpoints come in milliseconds; on a busy machine fewer must do. */
const SECONDS_PER_CHECKPOINT = 0.02;
const TARGET_KB = 2;

/** Who keeps the VM: `protect`, or `send`, which leaves QEMU's settings as they come. */
const KEEPERS: Readonly<
  Record<"protect" | "send", (setup: ColoSetup, stack: AsyncDisposableStack) => Promise<ColoVm>>
> = {
  protect: (setup, stack) => protectedVm({ ...setup, mode: "colo", commit: "async" }, stack),
  send: sentVm,
};
type Keeper = keyof typeof KEEPERS;

/** @param setup QEMU, devices and kemari; machine, memory, guest and pace are this figure's own. */
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

/** Of a VM of 64 MB that runs its firmware only: what it has in memory stays as it is. */
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
