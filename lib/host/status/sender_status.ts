/** The status of a sender, for `kemari status`; the JSON is a contract. */
import { formatUuid, type VmIdentity } from "../../decisions/whose_replica.ts";
import type { LatencyWindow } from "../../replica/latency_window.ts";
import type {
  CompressionStatus,
  CompressMode,
  SenderDurations,
  SenderStatus,
} from "../../control/sender_status.ts";
import type { RateMeter } from "../system/rate_meter.ts";
import type { RecentHolds } from "../../control/tap_status.ts";
import type { Encryption } from "../system/transport.ts";
import type { SenderLink } from "../link/sender_link.ts";
import type { EncryptionStatus, VmStatus } from "../../control/common_status.ts";

export function vmStatus({ name, uuid }: VmIdentity): VmStatus {
  return { name: name ?? null, uuid: uuid === undefined ? null : formatUuid(uuid) };
}

export function encryptionStatus(encryption: Encryption | undefined): EncryptionStatus | null {
  if (encryption === undefined) return null;
  const none = { peer: null, cipher: null, inKernel: false };
  if (encryption.kind !== "tls") return { kind: encryption.kind, ...none };
  const { peer, cipher, inKernel } = encryption;
  return { kind: "tls", peer: peer ?? null, cipher: cipher ?? null, inKernel: inKernel ?? false };
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
    encryption: encryptionStatus(link.encryption),
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
export function readDurations(
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
