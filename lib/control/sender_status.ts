/** The status of a sender; the JSON is a contract. */
import { COMMON_FIELDS, type CommonStatus, vmShape, type VmStatus } from "./common_status.ts";
import {
  type LatencySummary,
  latencySummary,
  type RecentDurations,
  recentDurations,
} from "./recent_durations.ts";
import {
  anyNumber,
  anyText,
  type Fields,
  listOf,
  nullable,
  oneOf,
  optional,
  record,
} from "./shape.ts";
import { RECENT_HOLDS, type RecentHolds, type TapStatus, tapStatus } from "./tap_status.ts";

export type CompressMode = "none" | "zstd" | "delta" | "auto";

export interface SenderStatus extends CommonStatus {
  readonly role: "sender";
  /** The VM; null for names that it does not have. */
  readonly vm?: VmStatus;
  /** `starting` to `connecting`: there is no session yet. */
  readonly state:
    | "starting"
    | "waiting for QEMU"
    | "waiting for the VM to run"
    | "connecting"
    | "first pass"
    | "synchronizing"
    | "unprotected"
    | "suspended";
  readonly mode: "colo" | "stream" | "snapshots";
  readonly peer: string;
  /** How many pages were left out because the replica has them. */
  readonly unchangedPages: number;
  /** Bytes made for the secondary since this session began, by purpose. */
  readonly sent: SentParts;
  readonly compression: CompressionStatus;
  /** The VM's pause at a checkpoint, ms. */
  readonly pause: LatencySummary;
  /** The part of it in which QEMU sends, ms. */
  readonly receiving: LatencySummary;
  /** COMMIT to ACK, ms. */
  readonly roundTrip: LatencySummary;
  /** Transactions sent and not acknowledged. */
  readonly inFlight: number;
  readonly pendingBytes: number;
  /**
   * The VM's output that does not go through kemari, as `protect` found it; `send` does not know
   * it.
   */
  readonly outside?: OutsideStatus | null;
  /** How the VM's devices have changed since this protection began, by name; null if not. */
  readonly deviceChange?: string | null;
  /** Absent without taps. */
  readonly taps?: TapStatus;
}

/** In bytes; unless packed, the sum is what was written to the connection and what waits for it. */
export interface SentParts {
  /** RAM records: pages and their places. */
  readonly pages: number;
  readonly deviceState: number;
  /** The VM's packets and disk writes. */
  readonly events: number;
  /** The protocol's own bytes. */
  readonly framing: number;
}

/** A sender's answer to `durations`: the values from which its percentiles are computed. */
export interface SenderDurations extends RecentHolds {
  readonly pause: RecentDurations;
  readonly receiving: RecentDurations;
  readonly roundTrip: RecentDurations;
}

/** Compression of QEMU's stream. */
export interface CompressionStatus {
  readonly mode: CompressMode;
  /** Bytes that QEMU sent for transactions; `payloadBytes` is what remains of them. */
  readonly streamBytes: number;
  /** Pages sent as differences; `unchangedPages` were not sent. */
  readonly deltaPages: number;
  /** Bytes of frames before and after zstd. */
  readonly packedFromBytes: number;
  readonly packedToBytes: number;
  readonly packingMs: number;
  /** Bytes of pages that are kept, and the limit. */
  readonly cacheBytes: number;
  readonly cacheLimitBytes: number;
  readonly cacheHits: number;
  readonly cacheMisses: number;
  readonly cacheEvictions: number;
  /** From a checkpoint read to it forwarded, ms: work that is put off until the VM runs. */
  readonly settling: LatencySummary;
}

/** Output that does not go through kemari; `qmp/outside_output.ts` finds it. */
export interface OutsideStatus {
  /**
   * Why nothing at all is held, if so; the lists then have everything. `null` if something is held.
   */
  readonly unheld: string | null;
  readonly nics: readonly OutsideNic[];
  /** Drives that another NBD server than kemari serves. */
  readonly drives: readonly string[];
  /** Serial ports, channels and other devices that others may listen to. */
  readonly others: readonly string[];
}

interface OutsideNic {
  readonly name: string;
  readonly model: string;
  readonly mac: string;
  /** QEMU's network back ends to which it is connected. */
  readonly backends: readonly {
    readonly name: string;
    readonly type: string;
    readonly info: string;
  }[];
  /** The same in sentences, for people. */
  readonly text: string;
}

/** The status before there is a session: the target, and what is waited for. */
export type EarlyStatus = Pick<SenderStatus, "role" | "state" | "peer" | "syncs">;

const state = oneOf<SenderStatus["state"]>(
  "starting",
  "waiting for QEMU",
  "waiting for the VM to run",
  "connecting",
  "first pass",
  "synchronizing",
  "unprotected",
  "suspended",
);

const compressionStatus = record<CompressionStatus>({
  mode: oneOf("none", "zstd", "delta", "auto"),
  streamBytes: anyNumber,
  deltaPages: anyNumber,
  packedFromBytes: anyNumber,
  packedToBytes: anyNumber,
  packingMs: anyNumber,
  cacheBytes: anyNumber,
  cacheLimitBytes: anyNumber,
  cacheHits: anyNumber,
  cacheMisses: anyNumber,
  cacheEvictions: anyNumber,
  settling: latencySummary,
});

const outsideStatus = record<OutsideStatus>({
  unheld: nullable(anyText),
  nics: listOf(record<OutsideNic>({
    name: anyText,
    model: anyText,
    mac: anyText,
    backends: listOf(record<OutsideNic["backends"][number]>({
      name: anyText,
      type: anyText,
      info: anyText,
    })),
    text: anyText,
  })),
  drives: listOf(anyText),
  others: listOf(anyText),
});

export const EARLY_SENDER_FIELDS: Fields<EarlyStatus> = {
  role: oneOf("sender"),
  state,
  peer: anyText,
  syncs: anyNumber,
};

export const SENDER_FIELDS: Fields<SenderStatus> = {
  ...COMMON_FIELDS,
  ...EARLY_SENDER_FIELDS,
  vm: optional(vmShape),
  mode: oneOf("colo", "stream", "snapshots"),
  unchangedPages: anyNumber,
  sent: record<SentParts>({
    pages: anyNumber,
    deviceState: anyNumber,
    events: anyNumber,
    framing: anyNumber,
  }),
  compression: compressionStatus,
  pause: latencySummary,
  receiving: latencySummary,
  roundTrip: latencySummary,
  inFlight: anyNumber,
  pendingBytes: anyNumber,
  outside: optional(nullable(outsideStatus)),
  deviceChange: optional(nullable(anyText)),
  taps: optional(tapStatus),
};

export const senderDurations = record<SenderDurations>({
  ...RECENT_HOLDS,
  pause: recentDurations,
  receiving: recentDurations,
  roundTrip: recentDurations,
});
