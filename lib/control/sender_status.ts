/** What a sender tells of itself; the JSON is a contract. */
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
  /** The VM; nulls where nothing names it. */
  readonly vm?: VmStatus;
  /** `starting` to `connecting`: there is no session yet, and little else to tell. */
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
  /** Pages left out because the replica has them. */
  readonly unchangedPages: number;
  /** What was made for the secondary since this session began, by what it is for. */
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
  /** What the VM says past kemari, as `protect` found it; `send` does not know. */
  readonly outside?: OutsideStatus | null;
  /** How the VM's devices have changed since this protection began, by name; null if not. */
  readonly deviceChange?: string | null;
  /** Where there are any. */
  readonly taps?: TapStatus;
}

/** In bytes; together what is on the connection and what waits for it, unless it is packed. */
export interface SentParts {
  /** RAM records: pages, and what says where they go. */
  readonly pages: number;
  readonly deviceState: number;
  /** The VM's packets and disk writes. */
  readonly events: number;
  /** ft-transaction's own. */
  readonly framing: number;
}

/** What a sender answers to `durations`: what its percentiles are made of. */
export interface SenderDurations extends RecentHolds {
  readonly pause: RecentDurations;
  readonly receiving: RecentDurations;
  readonly roundTrip: RecentDurations;
}

/** What is made of QEMU's stream before it is sent. */
export interface CompressionStatus {
  readonly mode: CompressMode;
  /** Bytes that QEMU sent for transactions; what is left of them is `payloadBytes`. */
  readonly streamBytes: number;
  /** Pages sent as differences; `unchangedPages` were not sent. */
  readonly deltaPages: number;
  /** Bytes of frames before and after zstd. */
  readonly packedFromBytes: number;
  readonly packedToBytes: number;
  readonly packingMs: number;
  /** Copies of pages that are kept, and how many of them at the most. */
  readonly cacheBytes: number;
  readonly cacheLimitBytes: number;
  readonly cacheHits: number;
  readonly cacheMisses: number;
  readonly cacheEvictions: number;
  /** Checkpoint read to forwarded, ms: work that is put off until the VM runs. */
  readonly settling: LatencySummary;
}

/** What goes past kemari, as QEMU says; `qmp/outside_output.ts` finds it out. */
export interface OutsideStatus {
  /** Why nothing at all is held; then the lists say what that is. `null` where something is. */
  readonly unheld: string | null;
  readonly nics: readonly OutsideNic[];
  /** Drives that another NBD server than kemari serves. */
  readonly drives: readonly string[];
  /** Serial ports, channels and other devices that somebody outside may listen to. */
  readonly others: readonly string[];
}

interface OutsideNic {
  readonly name: string;
  readonly model: string;
  readonly mac: string;
  /** QEMU's network back ends on the other side of its cable. */
  readonly backends: readonly {
    readonly name: string;
    readonly type: string;
    readonly info: string;
  }[];
  /** All of it, for people. */
  readonly text: string;
}

/** What is known before there is a session: whom it is for, and what is waited for. */
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
