/** The measurements of `kemari bench net`, as series of a result. */
import type { TappedStatus } from "../lib/lab/program/ask_end.ts";
import type { BenchDistribution, BenchSeries } from "../lib/report/bench_result.ts";
import { distributionOf, pairedRatios, quantile } from "../lib/report/bench_statistics.ts";

const THROUGHPUT_TARGET = 0.8;
const ADDED_MS_TARGET = 0.2;

/** Small messages that are sent to the guest and come back. */
export interface Arrivals {
  /** Each round trip, ms. */
  readonly trips: readonly number[];
  /** Losses per thousand datagrams, and TCP segments, that were sent to the guest. */
  readonly lostDatagrams: number;
  readonly lostSegments: number;
}

/** All measurements of a way into the guest. */
export interface WayResult extends Arrivals {
  /** Mbit/s out of the guest, and into it. */
  readonly out: number;
  readonly in: number;
}

export interface Protected extends WayResult {
  /** Times during requests and responses, without bulk traffic. */
  readonly status: TappedStatus;
}

/** Results of a protected guest whose NIC is QEMU's own. */
export interface Bypassed extends Arrivals {
  readonly syncsPerSecond: number;
}

/** All series and distributions of the rounds so far. */
export function netResult(
  straight: readonly WayResult[],
  tapped: readonly WayResult[],
  guarded: readonly Protected[],
  bypassed: readonly Bypassed[],
) {
  const ways = { straight, "kemari's tap": tapped, protected: guarded };
  const arrivals: Record<string, readonly Arrivals[]> = {
    ...ways,
    "protected, QEMU's own TAP": bypassed,
  };
  const each = (unit: string, what: string, value: (way: Arrivals) => number): BenchSeries[] =>
    Object.entries(arrivals).map(([name, results]) => ({
      name: `${what}, ${name}`,
      unit,
      samples: results.map(value),
    }));
  const named = Object.entries(ways);
  const median = ({ trips }: Arrivals) => quantile(trips, 0.5);
  const rate = ({ trips }: WayResult) => trips.length / trips.reduce((a, b) => a + b, 0) * 1000;
  const of = (unit: string, what: string, value: (way: WayResult) => number): BenchSeries[] =>
    named.map(([name, results]) => ({
      name: `${what}, ${name}`,
      unit,
      samples: results.map(value),
    }));
  const ratio = (name: string, a: readonly WayResult[], b: readonly WayResult[]) =>
  (
    what: string,
    value: (way: WayResult) => number,
    target?: BenchSeries["target"],
  ): BenchSeries => ({
    name: `${what}, ${name}`,
    unit: "×",
    samples: pairedRatios(a.map(value), b.map(value)),
    ...(target === undefined ? {} : { target }),
  });
  const passing = ratio("tap / straight", tapped, straight);
  const protecting = ratio("protected / tap", guarded, tapped);
  const goal = { kind: "at-least", value: THROUGHPUT_TARGET } as const;
  const split = (name: string, value: (status: Protected["status"]) => number): BenchSeries => ({
    name: `protected, ${name}`,
    unit: "ms",
    samples: guarded.map(({ status }) => value(status)),
  });
  return {
    name: "net",
    about: "One guest's NIC on a bridge: QEMU's own TAP, kemari's tap passing through, protected",
    series: [
      ...of("Mbit/s", "out of the guest", (way) => way.out),
      ...of("Mbit/s", "into the guest", (way) => way.in),
      ...of("round trips/s", "one connection", rate),
      passing("out of the guest", (way) => way.out, goal),
      passing("into the guest", (way) => way.in, goal),
      protecting("out of the guest", (way) => way.out),
      protecting("into the guest", (way) => way.in),
      protecting("round trips/s", rate),
      {
        name: "round trip added by the tap",
        unit: "ms",
        samples: tapped.map((way, i) => median(way) - median(straight[i])),
        target: { kind: "at-most", value: ADDED_MS_TARGET } as const,
      },
      ...each("ms", "round trip p50", median),
      ...each("ms", "round trip p99", ({ trips }) => quantile(trips, 0.99)),
      ...each("‰", "datagrams lost", ({ lostDatagrams }) => lostDatagrams),
      ...each("‰", "TCP segments lost", ({ lostSegments }) => lostSegments),
      {
        name: "checkpoints/s, protected, QEMU's own TAP",
        unit: "1/s",
        samples: bypassed.map(({ syncsPerSecond }) => syncsPerSecond),
      },
      split("frame held, p50", ({ taps }) => taps.nets.net0.hold.p50),
      split("of it: VM stopped, p50", ({ pause }) => pause.p50),
      split("of that: QEMU sends, p50", ({ receiving }) => receiving.p50),
      split("of it: COMMIT to ACK, p50", ({ roundTrip }) => roundTrip.p50),
    ],
    distributions: Object.entries(arrivals).flatMap(([name, results]): BenchDistribution[] => {
      const trips = results.flatMap((way) => way.trips);
      return [distributionOf(`round trip, ${name}`, "ms", trips)].filter((each) =>
        each !== undefined
      );
    }),
  };
}
