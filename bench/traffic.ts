/**
 * `kemari bench traffic`: the traffic on the sync link, over time and by kind, and how much each
 * way of compressing reduces it; the third chart of 2010.
 *
 * Bytes on the link are counted by its device (TCP's headers included), so that QEMU's pair can be
 * compared; the parts are the sender's count of what it produced, before packing.
 */
import type {
  BenchChart,
  BenchExperiment,
  BenchGrid,
  BenchSeries,
} from "../lib/report/bench_result.ts";
import type { BenchContext } from "./bench_context.ts";
import { GUEST_LIMITS, type GuestLab } from "./guest_lab.ts";
import { GuestRun } from "./guest_run.ts";
import { type GuestSetup, KEMARI_2010, QEMU_PAIR, QEMU_PAIR_AS_IT_COMES } from "./guest_setups.ts";
import type { Stretch } from "./stretch.ts";
import type { Workload } from "./workload.ts";
import { benchWorkloads, type MeasuredRows } from "./workload_rounds.ts";

const PARTS = ["pages", "deviceState", "events", "framing"] as const;
const PART_NAMES = ["pages", "device state", "events", "framing"];

type Measured = MeasuredRows<GuestSetup>;

/** @throws {KemariError} QEMU, guest or link cannot be set up. */
export function benchTraffic(context: BenchContext): Promise<BenchExperiment> {
  return benchWorkloads(context, {
    name: "traffic",
    seconds: { quick: 4, usual: 6, full: 20 },
    fullRounds: 3,
    rowsOf: async (lab): Promise<GuestSetup[]> => [
      ...(await compressModes(lab)).map((mode): GuestSetup => ({
        name: `kemari, --compress ${mode}`,
        kind: "kemari",
        options: ["--compress", mode],
      })),
      KEMARI_2010,
      QEMU_PAIR,
      QEMU_PAIR_AS_IT_COMES,
    ],
    start: (lab, setup, before) => GuestRun.start(lab, setup, before),
    experimentOf,
  });
}

/** The compression modes of this kemari, from its own help. */
async function compressModes(lab: GuestLab): Promise<string[]> {
  const [program, ...args] = [...lab.kemari.command, "protect", "--help"];
  const { stdout } = await new Deno.Command(program, { args, stderr: "null" }).output();
  const help = new TextDecoder().decode(stdout).replaceAll(/\s+/g, " ");
  const choices =
    /--compress <mode>.*?\(choices: ([^)]*?)(?:, default: [^)]*)?\)/.exec(help)?.[1] ?? "";
  return [...choices.matchAll(/"(\w+)"/g)].map(([, mode]) => mode);
}

function experimentOf(measured: Measured): BenchExperiment {
  const { rows: setups, kinds, working, seconds } = measured;
  const samples = measured.samples.bind(measured);
  const grid = measured.grid.bind(measured);
  const onLink = (stretch: Stretch) => stretch.linkBytes ?? stretch.wireBytes ?? NaN;
  const grids: BenchGrid[] = [
    grid("on the sync link", "MB/s", (stretch) => onLink(stretch) / stretch.seconds / 1e6),
    grid(
      "on the sync link for each sync",
      "kB",
      (stretch) => onLink(stretch) / stretch.syncs / 1e3,
    ),
    {
      name: "on the sync link for the guest's work",
      unit: "kB",
      rows: setups.map(({ name }) => name),
      columns: working.map((kind) => `for each ${kind.unit}`),
      cells: setups.map((setup) =>
        working.map((kind) => samples(setup, kind, (each) => onLink(each) / each.work / 1e3))
      ),
    },
    ...kinds.map((kind): BenchGrid => ({
      name: `what the sender makes, before packing, ${kind.name}`,
      unit: "MB/s",
      rows: setups.filter(({ kind }) => kind === "kemari").map(({ name }) => name),
      columns: [...PART_NAMES, "written to the connection"],
      cells: setups.filter((setup) => setup.kind === "kemari").map((setup) => [
        ...PARTS.map((part) =>
          samples(setup, kind, ({ sent, seconds }) => (sent?.[part] ?? NaN) / seconds / 1e6)
        ),
        samples(setup, kind, ({ wireBytes, seconds }) => (wireBytes ?? NaN) / seconds / 1e6),
      ]),
    })),
  ];
  return {
    name: "traffic",
    about: `what goes over the sync link while the guest works, ${seconds} s of each workload`,
    conditions: measured.conditions,
    series: [linkCheck(measured)].filter(({ samples }) => samples.length > 0),
    grids,
    charts: kinds.flatMap((kind) => chartsOf(measured, kind)),
    notes: measured.notes([
      "on the sync link: bytes of both directions as the link's device counts them, TCP's headers " +
      "included; without a network of our own, the sender's count of what it wrote",
      "the sender's parts are counted before zstd: where it packs, they add up to more than it " +
      "writes. Events are the guest's packets and disk writes, which travel with their transaction",
      `the time series are of the first round, ${setups.length} guests of ${kinds.length} workloads`,
    ]),
    cannotShow: [
      ...GUEST_LIMITS,
      "what a faster guest dirties: bytes for each unit of work travel better to another machine " +
      "than bytes per second",
    ],
  };
}

/** The ratio of both counts: they should differ only by the headers of TCP and below. */
function linkCheck(measured: Measured): BenchSeries {
  const { rows, kinds } = measured;
  const samples = rows.flatMap((row) => kinds.flatMap((kind) => measured.stretches(row, kind)))
    .flatMap(({ linkBytes, wireBytes }) =>
      linkBytes === undefined || wireBytes === undefined ? [] : [linkBytes / wireBytes]
    );
  return { name: "the link's count / the sender's count", unit: "×", samples };
}

function chartsOf(measured: Measured, kind: Workload): BenchChart[] {
  const x = { name: "time", unit: "s" };
  const y = { name: "traffic", unit: "MB/s" };
  const first = measured.rows.flatMap((setup) => {
    const [stretch] = measured.stretches(setup, kind);
    return stretch === undefined ? [] : [{ setup, stretch }];
  });
  const charts: BenchChart[] = [{
    name: `sync link, ${kind.name}`,
    x,
    y,
    curves: first.map(({ setup, stretch }) => ({
      name: setup.name,
      points: stretch.steps.map(({ x, link }) => [x, link === null ? null : link / 1e6] as const),
    })),
  }];
  const plain = first.find(({ setup }) => setup.kind === "kemari");
  if (plain === undefined) return charts;
  charts.push({
    name: `parts of it, ${plain.setup.name}, ${kind.name}`,
    x,
    y,
    kind: "stacked",
    curves: PARTS.map((part, i) => ({
      name: PART_NAMES[i],
      points: plain.stretch.steps.map(({ x, sent }) => [x, (sent?.[part] ?? 0) / 1e6] as const),
    })),
  });
  return charts;
}
