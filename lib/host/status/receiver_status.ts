/** What `kemari status` tells of a receiver; the JSON is a contract. */
import type { LatencySummary } from "../../replica/latency.ts";
import type { ReceiverHost } from "../link/receiver_host.ts";
import type { RamStatus } from "../ram_dir/ram_room.ts";
import type { RateMeter } from "../system/rate_meter.ts";
import type { StandbyStatus } from "../takeover/standby.ts";
import type { TakeoverStatus } from "../takeover/takeover_clock.ts";
import { type CommonStatus, type VmStatus, vmStatus } from "./sender_status.ts";

export interface ReceiverStatus extends CommonStatus {
  readonly role: "receiver";
  /** The VM whose replica is kept; null while there is none. */
  readonly vm: VmStatus | null;
  readonly state: "starting" | "listening" | "receiving" | "waiting" | "activating" | "active";
  readonly machine: string | null;
  readonly sender: string | null;
  /** Memory that holds guest pages. */
  readonly replicaBytes: number;
  /** Where they are in files, and what is sure of the room there; null where they are in memory. */
  readonly ram?: RamStatus | null;
  /** How the VM's devices have changed since this recv first saw them, by name; null if not. */
  readonly deviceChange?: string | null;
  /** COMMIT read to applied, ms. */
  readonly applying: LatencySummary | null;
  /** Whether a transaction has begun to arrive and is not committed. */
  readonly arriving: boolean;
  /** Packets and writes of committed transactions that the primary may not have let go. */
  readonly unreleased: number;
  /** The longest time in which this sender was not heard, ms: --grace must be well above it. */
  readonly longestSilenceMs: number | null;
  /** Writes of committed transactions that a copy of a disk has not taken yet, or has refused. */
  readonly pendingWrites: number;
  /** Disks that do not go with the committed state: the VM cannot go on here. */
  readonly incompleteDisks: readonly string[];
  /** Why the last session ended. */
  readonly lastLoss: string | null;
  /** The warm standby, if there is to be one. */
  readonly standby?: StandbyStatus | null;
  /** The takeover that is under way, or was made. */
  readonly takeover?: TakeoverStatus | null;
}

export function receiverStatus(
  receiver: ReceiverHost,
  state: ReceiverStatus["state"],
  rate: RateMeter,
): ReceiverStatus {
  const { committed, pages, zeroPages, payloadBytes } = receiver.counters;
  return {
    role: "receiver",
    state,
    vm: receiver.replica.committed === 0 ? null : vmStatus(receiver.owner.kept),
    machine: receiver.replica.machine ?? null,
    sender: receiver.session?.software ?? null,
    lastCommitted: receiver.replica.committed,
    lastCommittedAgeMs: receiver.committedAt === 0
      ? null
      : performance.now() - receiver.committedAt,
    syncs: committed,
    syncsPerSecond: rate.perSecond,
    pages,
    zeroPages,
    payloadBytes,
    wireBytes: receiver.session?.wireBytes ?? 0,
    replicaBytes: receiver.replica.memoryBytes,
    applying: receiver.session?.secondary.applying.summary() ?? null,
    arriving: receiver.session?.secondary.open ?? false,
    unreleased: receiver.replica.taps.unreleased.length,
    longestSilenceMs: receiver.session?.secondary.longestSilenceMs ?? null,
    pendingWrites: receiver.replica.taps.pendingWrites,
    incompleteDisks: receiver.replica.taps.incomplete,
    lastLoss: receiver.lastLoss ?? null,
  };
}
