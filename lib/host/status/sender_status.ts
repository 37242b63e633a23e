/** What `kemari status` tells of a sender; the JSON is a contract. */
import { formatUuid, type VmIdentity } from "../../decisions/whose_replica.ts";
import type { OutsideOutput } from "../../qmp/outside_output.ts";
import type { LatencySummary, LatencyWindow, RecentDurations } from "../../replica/latency.ts";
import type { CompressMode } from "../link/compression.ts";
import type { RateMeter } from "../system/rate_meter.ts";
import type { RecentHolds } from "../taps/tap_status.ts";
import type { SenderLink } from "../link/sender_link.ts";

export interface CommonStatus {
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
  taps: RecentHolds,
): SenderDurations {
  const recent = (window: LatencyWindow | undefined) => window?.recent() ?? { count: 0, ms: [] };
  return {
    pause: recent(link?.primary.pause),
    receiving: recent(link?.primary.receiving),
    roundTrip: recent(link?.primary.roundTrip),
    ...taps,
  };
}

export function compressionStatus(link: SenderLink, mode: CompressMode): CompressionStatus {
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
