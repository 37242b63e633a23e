/**
 * Checkpoints back to back, by kemari, by QEMU's own pair in every setup, and by QEMU alone with a
 * stand-in that answers at once.
 */
import type { BenchGrid, BenchSeries } from "../../lib/report/bench_result.ts";
import { median, pairedRatios, quantile } from "../../lib/report/bench_statistics.ts";
import type { BenchContext } from "../bench_context.ts";
import {
  bareRound,
  type Checkpoints,
  type KemariRound,
  protectRound,
  sendRound,
} from "./colo_round.ts";
import { type ColoSetup, pairedVm, unkeptVm } from "./colo_vm.ts";

const ROUNDS = 5;
const SECONDS = 5;
const QUICK_SECONDS = 1;
/** The goal for kemari's checkpoints a second, relative to the pair at its best. */
const TARGET_RATIO = 2.5;
/**
 * The goal for the guest's pause without QEMU's description of its devices, relative to the pause
 * with it.
 */
const TARGET_STOPPED = { bare: 0.6, virtio: 0.85 } as const;

/** A disk that discards writes and reads zeros; a NIC that is not connected. */
export const VIRTIO_DEVICES = [
  ...["-blockdev", "driver=null-co,node-name=disk,size=67108864,read-zeroes=on"],
  ...["-device", "virtio-blk-pci,drive=disk"],
  ...["-netdev", "hubport,id=net,hubid=0", "-device", "virtio-net-pci,netdev=net,romfile="],
];
const BARE_DEVICES = ["-nic", "none"];

/** A way of keeping the guest, and the results of each round. */
interface Way<Round extends Checkpoints> {
  readonly name: string;
  /** The results of {@link measure}, in the order of the rounds. */
  readonly rounds: Round[];
  readonly measure: () => Promise<Round>;
}

type PairWay = Way<Checkpoints> & {
  /** Whether the pair is not at its best in this setup, and so no competitor. */
  readonly asItComes?: boolean;
};

/** All ways, measured in turn. */
export class ColoRates {
  readonly #context: BenchContext;
  readonly #kemari: Record<
    "protect" | "sync" | "send" | "protectVirtio" | "sendVirtio",
    Way<KemariRound>
  >;
  readonly #pairs: readonly PairWay[];
  /** QEMU alone: the first without its description, the second with it, and so on. */
  readonly #alone: readonly Way<Checkpoints>[];

  /**
   * @param setup A guest with kemari's link, whose devices are this experiment's own.
   * @param quickLoopback Whether `setup.prefix` uses a loopback that acknowledges at once.
   */
  constructor(context: BenchContext, setup: ColoSetup, quickLoopback: boolean) {
    this.#context = context;
    const seconds = context.seconds ?? (context.quick ? QUICK_SECONDS : SECONDS);
    const bare = { ...setup, devices: BARE_DEVICES };
    const virtio = { ...setup, devices: VIRTIO_DEVICES };
    const protect = (name: string, setup: ColoSetup, commit: "sync" | "async") =>
      wayOf(name, () => protectRound({ ...setup, mode: "colo", commit }, seconds));
    const send = (name: string, setup: ColoSetup) => wayOf(name, () => sendRound(setup, seconds));
    this.#kemari = {
      protect: protect("kemari protect", bare, "async"),
      sync: protect("kemari protect, sync commit", bare, "sync"),
      send: send("kemari send", bare),
      protectVirtio: protect("kemari protect, virtio", virtio, "async"),
      sendVirtio: send("kemari send, virtio", virtio),
    };
    const pair = (name: string, changes: Partial<ColoSetup>, described: boolean): PairWay =>
      wayOf(
        `QEMU's pair, ${name}`,
        () => bareRound(pairedVm, { ...bare, ...changes, described }, seconds),
      );
    this.#pairs = [
      ...(quickLoopback
        ? [
          pair("TCP, quick ACKs, suppress-vmdesc", { link: "tcp" }, false),
          pair("TCP, quick ACKs", { link: "tcp" }, true),
        ]
        : []),
      pair("Unix socket, suppress-vmdesc", { link: "unix" }, false),
      pair("Unix socket", { link: "unix" }, true),
      { ...pair("TCP as it comes", { link: "tcp", prefix: [] }, true), asItComes: true },
    ];
    const alone = (name: string, setup: ColoSetup, described: boolean) =>
      wayOf(
        `answered at once${name}${described ? "" : ", suppress-vmdesc"}`,
        () => bareRound(unkeptVm, { ...setup, described }, seconds),
      );
    this.#alone = [
      alone("", bare, false),
      alone("", bare, true),
      alone(", virtio", virtio, false),
      alone(", virtio", virtio, true),
    ];
  }

  /** Measures every way once a round; each round begins with a different way. */
  async measure(keep: (partial: string) => void): Promise<void> {
    const { quick, signal } = this.#context;
    const rounds = this.#context.rounds ?? (quick ? 1 : ROUNDS);
    const ways = this.#ways;
    const total = rounds * ways.length;
    for (let step = 0; step < total; step++) {
      signal.throwIfAborted();
      const round = Math.floor(step / ways.length);
      const way = ways[(step + round) % ways.length];
      this.#context.progress("colo", step, total, `round ${round + 1}, ${way.name}`);
      way.rounds.push(await way.measure());
      if (step % ways.length === ways.length - 1) keep(`${round + 1} of ${rounds} rounds`);
    }
  }

  /** The ratio that has kemari's goal comes first. */
  get series(): BenchSeries[] {
    const { protect, send, protectVirtio, sendVirtio } = this.#kemari;
    const [bare, bareToo, virtio, virtioToo] = this.#alone;
    return [
      {
        name: "kemari protect / QEMU's pair at its best",
        unit: "×",
        samples: pairedRatios(ratesOf(protect), ratesOf(this.#best)),
        target: { kind: "at-least", value: TARGET_RATIO },
      },
      ...this.#ways.map((way) => ({ name: way.name, unit: "syncs/s", samples: ratesOf(way) })),
      ...stoppedRatios("protect / send, bare pc", protect, send, TARGET_STOPPED.bare),
      ...stoppedRatios(
        "protect / send, with virtio",
        protectVirtio,
        sendVirtio,
        TARGET_STOPPED.virtio,
      ),
      ...stoppedRatios("answered at once, suppress-vmdesc / as it comes, bare pc", bare, bareToo),
      ...stoppedRatios(
        "answered at once, suppress-vmdesc / as it comes, with virtio",
        virtio,
        virtioToo,
      ),
    ];
  }

  get grids(): BenchGrid[] {
    const ways = this.#ways;
    const kemari = Object.values(this.#kemari);
    const quantiles = [0.5, 0.99];
    return [
      {
        name: "guest stopped",
        unit: "ms",
        rows: ways.map(({ name }) => name),
        columns: ["p50", "p99"],
        cells: ways.map(({ rounds }) =>
          quantiles.map((share) => rounds.map(({ stoppedMs }) => quantile(stoppedMs, share)))
        ),
      },
      {
        name: "parts of a checkpoint",
        unit: "ms",
        rows: kemari.map(({ name }) => name),
        columns: PARTS.map(({ name }) => name),
        cells: kemari.map(({ rounds }) => PARTS.map(({ of }) => rounds.map(of))),
      },
    ];
  }

  get notes(): string[] {
    const described = this.#kemari.protect.rounds.some(({ described }) => described);
    return [
      `QEMU's pair at its best is "${this.#best.name}"; suppress-vmdesc is a property of both ` +
      "its machines, without which they go on describing their devices at every checkpoint",
      "answered at once: QEMU alone with a program that says at once what a secondary says, and " +
      "keeps nothing, over a Unix socket: the least that a checkpoint can take",
      "QEMU's pair, TCP as it comes: measures delayed acknowledgements; QEMU leaves Nagle's " +
      "algorithm on, and its small messages wait 40 ms each way",
      "kemari send leaves QEMU as it comes, with its description; kemari protect " +
      (described
        ? "has left the description on too: this kemari does not know suppress-vmdesc"
        : "has set suppress-vmdesc"),
      "guest stopped: QEMU's STOP to RESUME. Parts as the sender sees them: QEMU sends " +
      "(VMSTATE_SEND read → last byte read), reply (→ VMSTATE_LOADED written, with sync the round " +
      "trip is in it), round trip (COMMIT → ACK); of the session since its start, first pass " +
      "included in the round trip's p99",
    ];
  }

  get #ways(): readonly Way<Checkpoints>[] {
    return [...Object.values(this.#kemari), ...this.#pairs, ...this.#alone];
  }

  /** The fastest of the pair's ways. */
  get #best(): PairWay {
    const rivals = this.#pairs.filter(({ asItComes }) => !asItComes);
    return rivals.reduce((best, way) => median(ratesOf(way)) > median(ratesOf(best)) ? way : best);
  }
}

const PARTS: readonly { name: string; of: (round: KemariRound) => number }[] = [
  { name: "QEMU sends, p50", of: ({ sender }) => sender.receiving.p50 },
  { name: "QEMU sends, p99", of: ({ sender }) => sender.receiving.p99 },
  { name: "reply, p50", of: ({ sender }) => sender.pause.p50 - sender.receiving.p50 },
  { name: "round trip, p50", of: ({ sender }) => sender.roundTrip.p50 },
  { name: "round trip, p99", of: ({ sender }) => sender.roundTrip.p99 },
  { name: "guest runs between, p50", of: ({ runningMs }) => quantile(runningMs, 0.5) },
  { name: "sender's CPU", of: ({ senderCpuMs }) => senderCpuMs },
  { name: "recv's CPU", of: ({ receiverCpuMs }) => receiverCpuMs },
];

function wayOf<Round extends Checkpoints>(
  name: string,
  measure: () => Promise<Round>,
): Way<Round> {
  return { name, measure, rounds: [] };
}

function ratesOf({ rounds }: Way<Checkpoints>): number[] {
  return rounds.map(({ perSecond }) => perSecond);
}

/** @param most The goal: the greatest allowed median of the ratios. */
function stoppedRatios(
  what: string,
  above: Way<Checkpoints>,
  below: Way<Checkpoints>,
  most?: number,
): BenchSeries[] {
  const stopped = ({ rounds }: Way<Checkpoints>, share: number) =>
    rounds.map(({ stoppedMs }) => quantile(stoppedMs, share));
  return [0.5, 0.99].map((share) => ({
    name: `guest stopped p${share * 100}, ${what}`,
    unit: "×",
    samples: pairedRatios(stopped(above, share), stopped(below, share)),
    ...(most === undefined ? {} : { target: { kind: "at-most", value: most } }),
  }));
}
