/** The status of a receiver; the JSON is a contract. */
import { COMMON_FIELDS, type CommonStatus, vmShape, type VmStatus } from "./common_status.ts";
import { type LatencySummary, latencySummary } from "./recent_durations.ts";
import {
  anyBoolean,
  anyNumber,
  anyText,
  type Fields,
  listOf,
  nullable,
  oneOf,
  optional,
  record,
} from "./shape.ts";

/** Whether room is reserved: `--ram-reserve`. */
export type RamReserve = "full" | "none";

/** Where a replica's RAM is, and how much room is reserved. */
export interface RamStatus {
  readonly folder: string;
  readonly reserve: RamReserve;
  /** Bytes of reserved room. */
  readonly reservedBytes: number;
}

/** The status of the standby QEMU. */
export interface StandbyStatus {
  readonly state: "none" | "checking" | "starting" | "ready" | "loading" | "running" | "cold";
  /** QEMU's process id, if it runs. */
  readonly pid: number | null;
  /** How often it has died and been started again. */
  readonly restarts: number;
  /** Why the last QEMU died, or why activation will be cold. */
  readonly reason: string | null;
}

/** A takeover in `kemari status`. Times are milliseconds since the decision. */
export interface TakeoverStatus {
  readonly cause: "handover" | "loss" | "failover";
  /** When the primary's loss was noticed, or failover was asked for. ISO 8601. */
  readonly detectedAt: string;
  readonly transaction: number;
  /** `warm`: a standby took device state alone; `cold`: a QEMU took the whole stream. */
  readonly mode: "warm" | "cold" | null;
  /** The primary is known to be dead, or to have stopped its VM. */
  readonly fencedMs: number | null;
  /** What was committed is applied: RAM, disks, held output. */
  readonly appliedMs: number | null;
  /** QEMU has loaded the state; a command, or the reader of stdout, has read it. */
  readonly loadedMs: number | null;
  /** The guest runs; null if only the command knows. */
  readonly runningMs: number | null;
  /** The VM has sent its first frame, which may be its announcement. */
  readonly firstPacketMs: number | null;
}

export interface ReceiverStatus extends CommonStatus {
  readonly role: "receiver";
  /** The VM whose replica is kept; null while there is none. */
  readonly vm: VmStatus | null;
  readonly state: "starting" | "listening" | "receiving" | "waiting" | "activating" | "active";
  readonly machine: string | null;
  readonly sender: string | null;
  /** Bytes of memory with guest pages. */
  readonly replicaBytes: number;
  /** The folder and the reserved room if the pages are in files; null if they are in memory. */
  readonly ram?: RamStatus | null;
  /** How the VM's devices have changed since this recv first saw them, by name; null if not. */
  readonly deviceChange?: string | null;
  /** COMMIT read to applied, ms. */
  readonly applying: LatencySummary | null;
  /** Whether a transaction has begun to arrive and is not committed. */
  readonly arriving: boolean;
  /** Packets and writes of committed transactions that the primary may not have released. */
  readonly unreleased: number;
  /** The longest silence of this sender, ms: --grace must be well above it. */
  readonly longestSilenceMs: number | null;
  /** Writes of committed transactions that a copy of a disk has not taken yet, or has refused. */
  readonly pendingWrites: number;
  /** Disks that do not fit the committed state: the VM cannot go on here. */
  readonly incompleteDisks: readonly string[];
  /** Why the last session ended. */
  readonly lastLoss: string | null;
  /** The warm standby, if there is to be one. */
  readonly standby?: StandbyStatus | null;
  /** The present or last takeover. */
  readonly takeover?: TakeoverStatus | null;
}

/** The status of a receiver before it listens. */
export type EarlyReceiverStatus = Pick<ReceiverStatus, "role" | "state" | "syncs">;

const standbyStatus = record<StandbyStatus>({
  state: oneOf("none", "checking", "starting", "ready", "loading", "running", "cold"),
  pid: nullable(anyNumber),
  restarts: anyNumber,
  reason: nullable(anyText),
});

const takeoverStatus = record<TakeoverStatus>({
  cause: oneOf("handover", "loss", "failover"),
  detectedAt: anyText,
  transaction: anyNumber,
  mode: nullable(oneOf("warm", "cold")),
  fencedMs: nullable(anyNumber),
  appliedMs: nullable(anyNumber),
  loadedMs: nullable(anyNumber),
  runningMs: nullable(anyNumber),
  firstPacketMs: nullable(anyNumber),
});

export const EARLY_RECEIVER_FIELDS: Fields<EarlyReceiverStatus> = {
  role: oneOf("receiver"),
  state: oneOf<ReceiverStatus["state"]>(
    "starting",
    "listening",
    "receiving",
    "waiting",
    "activating",
    "active",
  ),
  syncs: anyNumber,
};

export const RECEIVER_FIELDS: Fields<ReceiverStatus> = {
  ...COMMON_FIELDS,
  ...EARLY_RECEIVER_FIELDS,
  vm: nullable(vmShape),
  machine: nullable(anyText),
  sender: nullable(anyText),
  replicaBytes: anyNumber,
  ram: optional(nullable(record<RamStatus>({
    folder: anyText,
    reserve: oneOf("full", "none"),
    reservedBytes: anyNumber,
  }))),
  deviceChange: optional(nullable(anyText)),
  applying: nullable(latencySummary),
  arriving: anyBoolean,
  unreleased: anyNumber,
  longestSilenceMs: nullable(anyNumber),
  pendingWrites: anyNumber,
  incompleteDisks: listOf(anyText),
  lastLoss: nullable(anyText),
  standby: optional(nullable(standbyStatus)),
  takeover: optional(nullable(takeoverStatus)),
};
