/** What `kemari status` tells of a running end: the JSON is a contract, see README. */
import { formatUuid, type VmIdentity } from "../../decisions/whose_replica.ts";
import type { OutsideOutput } from "../../qmp/outside_output.ts";
import type { LatencySummary, LatencyWindow, RecentDurations } from "../../replica/latency.ts";
import type { CompressMode } from "../link/compression.ts";
import type { ReceiverEnd } from "../link/receiver_end.ts";
import type { RamStatus } from "../ram_dir/ram_room.ts";
import type { RateMeter } from "../system/rate_meter.ts";
import type { StandbyStatus } from "../takeover/standby.ts";
import type { TakeoverStatus } from "../takeover/takeover_clock.ts";
import type { TapStatus } from "../taps/tap_status.ts";
import type { SenderLink } from "../link/sender_link.ts";

interface CommonStatus {
  /** The last transaction that the secondary has; 0 before the first. */
  readonly lastCommitted: number;
  /** Milliseconds since; null before the first. */
  readonly lastCommittedAgeMs: number | null;
  readonly syncs: number;
  readonly syncsPerSecond: number;
  readonly pages: number;
  readonly zeroPages: number;
  /** Bytes of transactions' payload. */
  readonly payloadBytes: number;
  /** Bytes on the connection, framing included. */
  readonly wireBytes: number;
}

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
  readonly outside?: OutsideOutput | null;
  /** How the VM's devices have changed since this protection began, by name; null if not. */
  readonly deviceChange?: string | null;
}

/** What names a VM. */
export interface VmStatus {
  readonly name: string | null;
  readonly uuid: string | null;
}

export function vmStatus({ name, uuid }: VmIdentity): VmStatus {
  return { name: name ?? null, uuid: uuid === undefined ? null : formatUuid(uuid) };
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
export interface SenderDurations {
  readonly pause: RecentDurations;
  readonly receiving: RecentDurations;
  readonly roundTrip: RecentDurations;
  /** How long each NIC's frames were held, by its name. */
  readonly netHold: Readonly<Record<string, RecentDurations>>;
  /** First write of an epoch to its release, of all disks. */
  readonly diskHold: RecentDurations;
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

export type EndStatus = SenderStatus | ReceiverStatus;

/** @param link The session, if there is one. */
export function senderStatus(
  link: SenderLink,
  state: SenderStatus["state"] | undefined,
  mode: SenderStatus["mode"] | undefined,
  peer: string,
  rate: RateMeter,
  compress: CompressMode,
): SenderStatus {
  const { primary } = link;
  const { committed, pages, zeroPages, unchangedPages, payloadBytes, stateBytes } =
    primary.counters;
  const lastCommitted = link.transaction - link.inFlight - (link.open ? 1 : 0);
  return {
    role: "sender",
    state: state ??
      (!link.ready
        ? "connecting"
        : primary.streamOffset === 0
        ? "waiting for QEMU"
        : committed === 0
        ? "first pass"
        : "synchronizing"),
    mode: mode ?? (primary.isColo ? "colo" : "stream"),
    peer,
    lastCommitted,
    lastCommittedAgeMs: committed === 0 ? null : performance.now() - primary.committedAt,
    syncs: committed,
    syncsPerSecond: rate.perSecond,
    pages,
    zeroPages,
    unchangedPages,
    compression: compressionStatus(link, compress),
    payloadBytes,
    wireBytes: link.wireBytes,
    sent: {
      pages: link.sent.stream - stateBytes,
      deviceState: stateBytes,
      events: link.sent.events,
      framing: link.sent.framing,
    },
    pause: primary.pause.summary(),
    receiving: primary.receiving.summary(),
    roundTrip: primary.roundTrip.summary(),
    inFlight: link.inFlight,
    pendingBytes: link.pendingBytes,
  };
}

/** @param link The session, if there is one. */
export function senderDurations(
  link: SenderLink | undefined,
  taps: Pick<SenderDurations, "netHold" | "diskHold">,
): SenderDurations {
  const recent = (window: LatencyWindow | undefined) => window?.recent() ?? { count: 0, ms: [] };
  return {
    pause: recent(link?.primary.pause),
    receiving: recent(link?.primary.receiving),
    roundTrip: recent(link?.primary.roundTrip),
    ...taps,
  };
}

function compressionStatus(link: SenderLink, mode: CompressMode): CompressionStatus {
  const { counters, cache, settling } = link.primary;
  const packed = link.packed;
  return {
    mode,
    streamBytes: counters.streamBytes,
    deltaPages: counters.deltaPages,
    packedFromBytes: packed?.fromBytes ?? 0,
    packedToBytes: packed?.toBytes ?? 0,
    packingMs: packed?.packingMs ?? 0,
    cacheBytes: cache?.memoryBytes ?? 0,
    cacheLimitBytes: cache?.limitBytes ?? 0,
    cacheHits: cache?.hits ?? 0,
    cacheMisses: cache?.misses ?? 0,
    cacheEvictions: cache?.evictions ?? 0,
    settling: settling.summary(),
  };
}

export function receiverStatus(
  end: ReceiverEnd,
  state: ReceiverStatus["state"],
  rate: RateMeter,
): ReceiverStatus {
  const { committed, pages, zeroPages, payloadBytes } = end.counters;
  return {
    role: "receiver",
    state,
    vm: end.replica.committed === 0 ? null : vmStatus(end.owner.kept),
    machine: end.replica.machine ?? null,
    sender: end.session?.software ?? null,
    lastCommitted: end.replica.committed,
    lastCommittedAgeMs: end.committedAt === 0 ? null : performance.now() - end.committedAt,
    syncs: committed,
    syncsPerSecond: rate.perSecond,
    pages,
    zeroPages,
    payloadBytes,
    wireBytes: end.session?.wireBytes ?? 0,
    replicaBytes: end.replica.memoryBytes,
    applying: end.session?.secondary.applying.summary() ?? null,
    arriving: end.session?.secondary.open ?? false,
    unreleased: end.replica.taps.unreleased.length,
    longestSilenceMs: end.session?.secondary.longestSilenceMs ?? null,
    pendingWrites: end.replica.taps.pendingWrites,
    incompleteDisks: end.replica.taps.incomplete,
    lastLoss: end.lastLoss ?? null,
  };
}

/** One line for people. */
export function statusLine(status: EndStatus & { readonly taps?: TapStatus }): string {
  const parts: string[] = [status.state];
  if (status.syncs > 0) {
    parts.push(
      `transaction ${status.lastCommitted}`,
      `${status.syncsPerSecond.toFixed(1)} syncs/s`,
      `${formatBytes(status.wireBytes)} sent`,
    );
  } else if (status.wireBytes > 0) parts.push(formatBytes(status.wireBytes));
  if (status.role === "sender") {
    if (status.pause.count > 0) {
      parts.push(`pause p50 ${status.pause.p50.toFixed(1)} p99 ${status.pause.p99.toFixed(1)} ms`);
    }
    if (status.inFlight > 0) parts.push(`${status.inFlight} in flight`);
    for (const { name, copied, stuck } of status.taps?.disks ?? []) {
      if (copied < 1) parts.push(`${name} ${(100 * copied).toFixed(0)} % in step`);
      if (stuck !== null) parts.push(`${name} STUCK`);
    }
  } else parts.push(`${formatBytes(status.replicaBytes)} of pages`);
  return parts.join(", ");
}

/** A size for people, in binary units. */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${value >= 100 || unit === 0 ? value.toFixed(0) : value.toFixed(1)} ${units[unit]}`;
}
