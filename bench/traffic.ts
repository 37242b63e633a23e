/**
 * `kemari bench traffic`: what goes over the sync link, over time and of what kind, and what each
 * way of compressing makes of it; the third picture of 2010.
 *
 * Bytes on the link are its device's own count (TCP's headers included), so that QEMU's pair can
 * stand beside; the parts are the sender's count of what it made, before packing.
 */
import type {
  BenchChart,
  BenchExperiment,
  BenchGrid,
  BenchSeries,
} from "../lib/report/bench_result.ts";
import type { BenchContext, LinkRate } from "./bench_context.ts";
import { GUEST_LIMITS, GuestLab } from "./guest_lab.ts";
import { GuestRun } from "./guest_run.ts";
import { type GuestSetup, KEMARI_2010, PAIR_NOTES, QEMU_PAIR } from "./guest_setups.ts";
import { IOZONE_NOTE } from "./iozone_program.ts";
import { measureStretch, type Stretch } from "./stretch.ts";
import { type Workload, workloads } from "./workload.ts";

const QUICK_SECONDS = 4;
const USUAL_SECONDS = 6;
const FULL_SECONDS = 20;
const FILE_BYTES = 4 << 20;
const DISK_MIB = 64;

const PARTS = ["pages", "deviceState", "events", "framing"] as const;
const PART_NAMES = ["pages", "device state", "events", "framing"];

/** Stretches by setup and workload, in the order of the rounds. */
type Stretches = Map<GuestSetup, Map<Workload, Stretch[]>>;

/** @throws {KemariError} QEMU, guest or link cannot be set up. */
export async function benchTraffic(context: BenchContext): Promise<BenchExperiment> {
  const { quick, full, signal } = context;
  const seconds = context.seconds ??
    (quick ? QUICK_SECONDS : full ? FULL_SECONDS : USUAL_SECONDS);
  const rounds = context.rounds ?? (full ? 3 : 1);
  const fileBytes = context.fileBytes ?? FILE_BYTES;
  await using lab = await GuestLab.make(context, DISK_MIB + Math.ceil(fileBytes / 2 ** 20));
  const [link] = lab.links(context.links ?? ["10G"]);
  await lab.shape(link);
  const setups = [
    ...(await compressModes(lab)).map((mode): GuestSetup => ({
      name: `kemari, --compress ${mode}`,
      kind: "kemari",
      options: ["--compress", mode],
    })),
    KEMARI_2010,
    QEMU_PAIR,
  ];
  const kinds = workloads(fileBytes, lab.net !== undefined);
  const found: Stretches = new Map(
    setups.map((setup) => [setup, new Map(kinds.map((kind) => [kind, []]))]),
  );
  const total = rounds * setups.length;
  for (let step = 0; step < total; step++) {
    signal.throwIfAborted();
    const round = Math.floor(step / setups.length);
    const setup = setups[(step + round) % setups.length];
    context.progress("traffic", step, total, `round ${round + 1}, ${setup.name}`);
    await using run = await GuestRun.start(lab, setup);
    for (const kind of kinds) {
      found.get(setup)!.get(kind)!.push(await measureStretch(run, kind, seconds));
    }
    if (step + 1 === total) break;
    const partial = `${step + 1} of ${total} guests`;
    context.keep({ ...experimentOf(lab, found, kinds, link, seconds), partial });
  }
  return experimentOf(lab, found, kinds, link, seconds);
}

/** The choices that this kemari has, from its own help. */
async function compressModes(lab: GuestLab): Promise<string[]> {
  const [program, ...args] = [...lab.kemari.command, "protect", "--help"];
  const { stdout } = await new Deno.Command(program, { args, stderr: "null" }).output();
  const help = new TextDecoder().decode(stdout).replaceAll(/\s+/g, " ");
  const choices =
    /--compress <mode>.*?\(choices: ([^)]*?)(?:, default: [^)]*)?\)/.exec(help)?.[1] ?? "";
  return [...choices.matchAll(/"(\w+)"/g)].map(([, mode]) => mode);
}

function experimentOf(
  lab: GuestLab,
  found: Stretches,
  kinds: readonly Workload[],
  link: LinkRate,
  seconds: number,
): BenchExperiment {
  const setups = [...found.keys()];
  const rows = setups.map(({ name }) => name);
  const samples = (setup: GuestSetup, kind: Workload, of: (stretch: Stretch) => number) =>
    found.get(setup)!.get(kind)!.map(of).filter(Number.isFinite);
  const grid = (name: string, unit: string, of: (stretch: Stretch) => number): BenchGrid => ({
    name,
    unit,
    rows,
    columns: kinds.map((kind) => kind.name),
    cells: setups.map((setup) => kinds.map((kind) => samples(setup, kind, of))),
  });
  const onLink = (stretch: Stretch) => stretch.linkBytes ?? stretch.wireBytes ?? NaN;
  const working = kinds.filter(({ unit }) => unit !== undefined);
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
      rows,
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
    conditions: { ...lab.conditions(link), seconds: `${seconds}` },
    series: [linkCheck(found)].filter(({ samples }) => samples.length > 0),
    grids,
    charts: kinds.flatMap((kind) => chartsOf(found, kind)),
    notes: [
      `kemari is ${lab.kemari.about}; ${IOZONE_NOTE}`,
      ...kinds.map(({ name, about }) => `${name}: ${about}`),
      "on the sync link: bytes of both directions as the link's device counts them, TCP's headers " +
      "included; without a network of our own, the sender's count of what it wrote",
      "the sender's parts are counted before zstd: where it packs, they add up to more than it " +
      "writes. Events are the guest's packets and disk writes, which travel with their transaction",
      `the time series are of the first round, ${setups.length} guests of ${kinds.length} workloads`,
      ...PAIR_NOTES,
      ...lab.linkNotes(),
      ...(lab.net === undefined ? ["request/response needs a network of its own: left out"] : []),
    ],
    cannotShow: [
      ...GUEST_LIMITS,
      "what a faster guest dirties: bytes for each unit of work travel better to another machine " +
      "than bytes per second",
    ],
  };
}

/** Whether both counts are of the same thing: headers of TCP and below are what they differ by. */
function linkCheck(found: Stretches): BenchSeries {
  const samples = [...found.values()].flatMap((kinds) => [...kinds.values()].flat())
    .flatMap(({ linkBytes, wireBytes }) =>
      linkBytes === undefined || wireBytes === undefined ? [] : [linkBytes / wireBytes]
    );
  return { name: "the link's count / the sender's count", unit: "×", samples };
}

function chartsOf(found: Stretches, kind: Workload): BenchChart[] {
  const x = { name: "time", unit: "s" };
  const y = { name: "traffic", unit: "MB/s" };
  const first = [...found].flatMap(([setup, kinds]) => {
    const stretch = kinds.get(kind)![0];
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
