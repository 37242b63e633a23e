/**
 * `kemari bench syncs`: how many synchronizations a second, over time, and how long each stops the
 * guest and holds its output; the fourth chart of 2010.
 *
 * kemari has two kinds of rows: with its own decisions (packets, and in the 2010 mode disk writes,
 * trigger a sync), and with syncs requested back to back, like QEMU's pair: the next sync is
 * requested at QEMU's RESUME. In every row, syncs and pauses are measured by QEMU's STOP and
 * RESUME.
 *
 * Results: the pair that kemari is compared with must not wait for delayed acknowledgements. With
 * default settings it makes 11 syncs a second whatever the guest does, at its best some hundreds.
 */
import type { BenchChart, BenchDistribution, BenchExperiment } from "../lib/report/bench_result.ts";
import {
  distributionOf,
  pairedRatios,
  quantile,
  ratioGrid,
} from "../lib/report/bench_statistics.ts";
import type { BenchContext } from "./bench_context.ts";
import { GUEST_LIMITS } from "./guest_lab.ts";
import { GuestRun } from "./guest_run.ts";
import {
  type GuestSetup,
  KEMARI_2010,
  KEMARI_DEFAULT,
  QEMU_PAIR,
  QEMU_PAIR_AS_IT_COMES,
  SYNC_INTERVAL_MS,
} from "./guest_setups.ts";
import type { Stretch } from "./stretch.ts";
import type { Workload } from "./workload.ts";
import { benchWorkloads, type MeasuredRows } from "./workload_rounds.ts";

/** A setup, and whether every sync is followed by a request for the next. */
interface Row {
  readonly name: string;
  readonly setup: GuestSetup;
  readonly backToBack: boolean;
}

const PAIR_ROW = `${QEMU_PAIR.name}, back to back`;
const KEMARI_ROW = `${KEMARI_DEFAULT.name}, back to back`;
/** The goal for an idle guest's syncs back to back, relative to the pair at its best. */
const TARGET_RATIO = 2.5;
const ROWS: readonly Row[] = [
  { name: KEMARI_2010.name, setup: KEMARI_2010, backToBack: false },
  { name: KEMARI_DEFAULT.name, setup: KEMARI_DEFAULT, backToBack: false },
  {
    name: KEMARI_ROW,
    // kemari must not request checkpoints too: a request in the middle of a checkpoint may hang
    // QEMU 11.1.
    setup: { ...KEMARI_DEFAULT, options: ["--sync-on", "none"] },
    backToBack: true,
  },
  { name: PAIR_ROW, setup: QEMU_PAIR, backToBack: true },
  {
    name: `${QEMU_PAIR_AS_IT_COMES.name}, back to back`,
    setup: QEMU_PAIR_AS_IT_COMES,
    backToBack: true,
  },
];

/** @throws {KemariError} QEMU, guest or link cannot be set up. */
export function benchSyncs(context: BenchContext): Promise<BenchExperiment> {
  return benchWorkloads(context, {
    name: "syncs",
    seconds: { quick: 4, usual: 8, full: 30 },
    fullRounds: 5,
    rowsOf: () => ROWS,
    start: async (lab, row, before) => {
      const run = await GuestRun.start(lab, row.setup, before);
      if (row.backToBack) run.stops.askBackToBack(SYNC_INTERVAL_MS);
      return run;
    },
    experimentOf,
  });
}

function experimentOf(measured: MeasuredRows<Row>): BenchExperiment {
  const { rows, kinds } = measured;
  const grid = measured.grid.bind(measured);
  const perSecond = ({ syncs, seconds }: Stretch) => syncs / seconds;
  const rates = grid("syncs", "syncs/s", perSecond);
  const idle = (name: string) =>
    measured.samples(rows.find((row) => row.name === name)!, kinds[0], perSecond);
  return {
    name: "syncs",
    about: `synchronizations while the guest works, ${measured.seconds} s of each workload`,
    conditions: measured.conditions,
    series: [{
      name: `${KEMARI_ROW} / ${PAIR_ROW}, ${kinds[0].name}`,
      unit: "×",
      samples: pairedRatios(idle(KEMARI_ROW), idle(PAIR_ROW)),
      target: { kind: "at-least", value: TARGET_RATIO },
    }],
    grids: [
      rates,
      ratioGrid(rates, `syncs against ${PAIR_ROW}`, PAIR_ROW),
      grid("guest stopped, p50", "ms", ({ pausesMs }) => quantile(pausesMs, 0.5)),
      grid("guest stopped, p99", "ms", ({ pausesMs }) => quantile(pausesMs, 0.99)),
      grid(
        "guest stopped, share of the time",
        "%",
        ({ pausesMs, seconds }) => pausesMs.reduce((sum, ms) => sum + ms, 0) / seconds / 10,
      ),
      grid("commit, p50", "ms", ({ commitsMs }) => quantile(commitsMs, 0.5)),
      grid("packets held, p50", "ms", ({ netHoldsMs }) => quantile(netHoldsMs, 0.5)),
      grid("disk writes held, p50", "ms", ({ diskHoldsMs }) => quantile(diskHoldsMs, 0.5)),
      ...measured.working.map((kind) =>
        grid(`work done, ${kind.unit}`, "1/s", ({ work, seconds }) => work / seconds, [kind])
      ),
    ],
    charts: kinds.map((kind): BenchChart => ({
      name: `syncs per second, ${kind.name}`,
      x: { name: "time", unit: "s" },
      y: { name: "syncs", unit: "1/s" },
      curves: rows.flatMap((row) => {
        const [stretch] = measured.stretches(row, kind);
        return stretch === undefined ? [] : [{ name: row.name, points: stretch.rates }];
      }),
    })),
    distributions: rows.flatMap((row) =>
      kinds.flatMap((kind) => distributions(measured, row, kind))
    ),
    notes: measured.notes([
      `${KEMARI_2010.name}: ${KEMARI_2010.options!.join(" ")}, one image for both ends; ` +
      `${KEMARI_DEFAULT.name}: asynchronous commit, packets ask for a sync; both sync after ` +
      `${SYNC_INTERVAL_MS} ms at the latest; back to back: the next sync is asked for when QEMU ` +
      "says RESUME",
      "syncs and pauses are QEMU's STOP and RESUME; commit is COMMIT to ACK as the sender sees it; " +
      "held is from a packet's (or an epoch's first disk write's) coming to its release",
      "curves are of the first round, distributions of all",
    ]),
    cannotShow: GUEST_LIMITS,
  };
}

function distributions(
  measured: MeasuredRows<Row>,
  row: Row,
  kind: Workload,
): BenchDistribution[] {
  const stretches = measured.stretches(row, kind);
  const all = (what: string, of: (stretch: Stretch) => readonly number[]) =>
    distributionOf(`${what}: ${row.name}, ${kind.name}`, "ms", stretches.flatMap(of));
  return [
    all("guest stopped", ({ pausesMs }) => pausesMs),
    all("commit", ({ commitsMs }) => commitsMs),
    all("packets held", ({ netHoldsMs }) => netHoldsMs),
    all("disk writes held", ({ diskHoldsMs }) => diskHoldsMs),
  ].filter((each) => each !== undefined);
}
