/** Shared by the experiments that run every workload in guests that are kept in several ways. */
import type { BenchExperiment, BenchGrid } from "../lib/report/bench_result.ts";
import type { BenchContext, LinkRate } from "./bench_context.ts";
import { GuestLab } from "./guest_lab.ts";
import type { GuestRun } from "./guest_run.ts";
import { pairNotes } from "./guest_setups.ts";
import { IOZONE_NOTE } from "./iozone_program.ts";
import { measureStretch, type Stretch } from "./stretch.ts";
import { type Workload, workloads } from "./workload.ts";

const FILE_BYTES = 4 << 20;
const DISK_MIB = 64;

/** One way of keeping a guest: a row of the tables. */
interface Row {
  readonly name: string;
}

/** Configuration of an experiment of this kind. */
interface WorkloadRounds<R extends Row> {
  readonly name: string;
  /** How long each workload is measured, unless the command line sets a time. */
  readonly seconds: { readonly quick: number; readonly usual: number; readonly full: number };
  /** How often `--full` measures everything. */
  readonly fullRounds: number;
  rowsOf(lab: GuestLab): readonly R[] | Promise<readonly R[]>;
  /**
   * Starts a row's guest, and keeps it in the row's way.
   *
   * @param before A command that the guest runs before it is protected.
   */
  start(lab: GuestLab, row: R, before: string): Promise<GuestRun>;
  experimentOf(measured: MeasuredRows<R>): BenchExperiment;
}

/**
 * Measures every row with every workload. Each round begins with a different row, so that no row is
 * always the first.
 *
 * @throws {KemariError} QEMU, guest or link cannot be set up.
 */
export async function benchWorkloads<R extends Row>(
  context: BenchContext,
  plan: WorkloadRounds<R>,
): Promise<BenchExperiment> {
  const { quick, full, signal } = context;
  const seconds = context.seconds ?? plan.seconds[quick ? "quick" : full ? "full" : "usual"];
  const rounds = context.rounds ?? (full ? plan.fullRounds : 1);
  const fileBytes = context.fileBytes ?? FILE_BYTES;
  await using lab = await GuestLab.make(context, DISK_MIB + Math.ceil(fileBytes / 2 ** 20));
  const [link] = lab.links(context.links ?? ["10G"]);
  await lab.shape(link);
  const rows = await plan.rowsOf(lab);
  const kinds = workloads(fileBytes, lab.net !== undefined);
  const before = kinds.map((kind) => kind.before ?? "true").join(" && ");
  const measured = new MeasuredRows(lab, link, seconds, rows, kinds);
  const total = rounds * rows.length;
  for (let step = 0; step < total; step++) {
    signal.throwIfAborted();
    const round = Math.floor(step / rows.length);
    const row = rows[(step + round) % rows.length];
    context.progress(plan.name, step, total, `round ${round + 1}, ${row.name}`);
    await using run = await plan.start(lab, row, before);
    for (const kind of kinds) measured.add(row, kind, await measureStretch(run, kind, seconds));
    if (step + 1 === total) break;
    context.keep({ ...plan.experimentOf(measured), partial: `${step + 1} of ${total} guests` });
  }
  return plan.experimentOf(measured);
}

/** The results so far, and their conditions. */
export class MeasuredRows<R extends Row> {
  /** In the order of the rounds. */
  readonly #stretches: ReadonlyMap<R, ReadonlyMap<Workload, Stretch[]>>;

  constructor(
    private readonly lab: GuestLab,
    private readonly link: LinkRate,
    readonly seconds: number,
    readonly rows: readonly R[],
    readonly kinds: readonly Workload[],
  ) {
    this.#stretches = new Map(
      rows.map((row) => [row, new Map(kinds.map((kind) => [kind, []]))]),
    );
  }

  add(row: R, kind: Workload, stretch: Stretch): void {
    this.#stretches.get(row)!.get(kind)!.push(stretch);
  }

  /** An element for each completed round. */
  stretches(row: R, kind: Workload): readonly Stretch[] {
    return this.#stretches.get(row)!.get(kind)!;
  }

  /** The workloads that do something. */
  get working(): readonly Workload[] {
    return this.kinds.filter(({ unit }) => unit !== undefined);
  }

  /** The value of each round; rounds without a value are left out. */
  samples(row: R, kind: Workload, of: (stretch: Stretch) => number): number[] {
    return this.stretches(row, kind).map(of).filter(Number.isFinite);
  }

  /** A table with a column for each workload. */
  grid(
    name: string,
    unit: string,
    of: (stretch: Stretch) => number,
    columns = this.kinds,
  ): BenchGrid {
    return {
      name,
      unit,
      rows: this.rows.map((row) => row.name),
      columns: columns.map((kind) => kind.name),
      cells: this.rows.map((row) => columns.map((kind) => this.samples(row, kind, of))),
    };
  }

  get conditions(): Record<string, string> {
    return { ...this.lab.conditions(this.link), seconds: `${this.seconds}` };
  }

  /** @param own Notes that belong to this experiment alone. */
  notes(own: readonly string[]): string[] {
    const { kemari, net } = this.lab;
    return [
      `kemari is ${kemari.about}; ${IOZONE_NOTE}`,
      ...this.kinds.map(({ name, about }) => `${name}: ${about}`),
      ...own,
      ...pairNotes(net !== undefined),
      ...this.lab.linkNotes(),
      ...(net === undefined ? ["request/response needs a network of its own: left out"] : []),
    ];
  }
}
