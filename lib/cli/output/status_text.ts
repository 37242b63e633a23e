/** `kemari status` for people: a small block with units. */
import { type EarlyEndStatus, type EndStatus, isWhole } from "../../control/end_status.ts";
import type {
  CompressionStatus,
  OutsideStatus,
  SenderStatus,
} from "../../control/sender_status.ts";
import type { EncryptionStatus, VmStatus } from "../../control/common_status.ts";
import type { LatencySummary } from "../../control/recent_durations.ts";
import { formatAge, formatBytes, formatMs, formatRate } from "../../units.ts";
import type { RamStatus, ReceiverStatus, StandbyStatus } from "../../control/receiver_status.ts";
import { formatTakeover } from "../../host/takeover/takeover_clock.ts";
import { formatPairs } from "../../report/text_table.ts";
import { tapPairs } from "./tap_status_text.ts";

type Pair = readonly [string, string];

/**
 * Lays a status out as lines of a name and a value.
 *
 * @returns Text that ends with a line break.
 */
export function formatStatus(status: EndStatus | EarlyEndStatus): string {
  const pairs = !isWhole(status)
    ? earlyPairs(status)
    : status.role === "sender"
    ? senderPairs(status)
    : receiverPairs(status);
  return formatPairs(pairs).map((line) => line + "\n").join("");
}

function earlyPairs(status: EarlyEndStatus): Pair[] {
  const state: Pair = [status.role, status.state];
  return status.role === "sender" ? [state, ["peer", status.peer]] : [state];
}

function senderPairs(status: SenderStatus): Pair[] {
  const pairs: Pair[] = [["sender", `${status.state} (${status.mode})`], ["peer", status.peer]];
  pairs.push(...encryptionPair(status.encryption), ...vmPair(status.vm));
  pairs.push(...transactionPairs(status));
  pairs.push(...compressionPairs(status.compression));
  pairs.push(
    ...latencyPair("pause", status.pause),
    ...latencyPair("  QEMU sends", status.receiving),
    ...latencyPair("round trip", status.roundTrip),
  );
  const { pages, deviceState, events, framing } = status.sent;
  pairs.push(
    ["in flight", `${status.inFlight} transactions, ${formatBytes(status.pendingBytes)}`],
    [
      "sent",
      `${formatBytes(pages)} of pages, ${formatBytes(deviceState)} of device state, ` +
      `${formatBytes(events)} of events, ${formatBytes(framing)} of framing`,
    ],
  );
  if (status.taps !== undefined) pairs.push(...tapPairs(status.taps));
  if (status.deviceChange) pairs.push(["devices", `${status.deviceChange} since it began`]);
  if (status.outside) pairs.push(...outsidePairs(status.outside));
  return pairs;
}

/** Output of the VM that is not held until its transaction is committed. */
function outsidePairs({ unheld, nics, drives, others }: OutsideStatus): Pair[] {
  if (unheld !== null) return [["NOT HELD", "what the NICs send: none has a --net"]];
  const pairs = nics.map(({ text }): Pair => ["NOT HELD", `what NIC ${text} sends`]);
  if (drives.length > 0) pairs.push(["NOT HELD", `writes to ${drives.join(", ")}`]);
  if (others.length > 0) pairs.push(["not held", others.join(", ")]);
  return pairs;
}

function receiverPairs(status: ReceiverStatus): Pair[] {
  const pairs: Pair[] = [["receiver", status.state], ...vmPair(status.vm)];
  if (status.machine) pairs.push(["machine", status.machine]);
  if (status.sender) pairs.push(["sender", status.sender]);
  pairs.push(...encryptionPair(status.encryption));
  pairs.push(...transactionPairs(status));
  pairs.push(["replica", `${formatBytes(status.replicaBytes)} of pages`]);
  if (status.ram) pairs.push(["RAM files", formatRam(status.ram)]);
  if (status.deviceChange) {
    pairs.push(["devices", `${status.deviceChange} since the VM was first seen here`]);
  }
  if (status.applying) pairs.push(...latencyPair("applying", status.applying));
  if (status.unreleased > 0) pairs.push(["unreleased", `${status.unreleased} packets and writes`]);
  if (status.longestSilenceMs) {
    pairs.push(["longest silence", formatMs(status.longestSilenceMs)]);
  }
  if (status.standby) pairs.push(["standby", formatStandby(status.standby)]);
  if (status.takeover) pairs.push(["takeover", formatTakeover(status.takeover)]);
  if (status.pendingWrites > 0) {
    pairs.push([
      "pending",
      `${status.pendingWrites} committed writes that the disks here have not taken yet`,
    ]);
  }
  if (status.incompleteDisks.length > 0) {
    pairs.push(["incomplete", `${status.incompleteDisks.join(", ")}: cannot take over yet`]);
  }
  if (status.lastLoss) pairs.push(["last loss", status.lastLoss]);
  return pairs;
}

/** The link's encryption; nothing if the end is too old to report it, or there is no session. */
function encryptionPair(encryption: EncryptionStatus | null | undefined): Pair[] {
  if (!encryption) return [];
  const { kind, peer, cipher, inKernel } = encryption;
  if (kind !== "tls") return [["encryption", kind === "ssh" ? "by ssh" : "none"]];
  if (cipher === null) return [["encryption", "TLS 1.3, not yet agreed on"]];
  const by = inKernel ? "by the kernel" : "by OpenSSL, not by the kernel";
  return [["encryption", `${cipher}, ${by}; peer ${peer}`]];
}

function vmPair(vm: VmStatus | null | undefined): Pair[] {
  if (!vm?.name && !vm?.uuid) return [];
  return [["VM", [vm.name, vm.uuid && `UUID ${vm.uuid}`].filter(Boolean).join(", ")]];
}

function compressionPairs(compression: CompressionStatus): Pair[] {
  if (compression.mode === "none") return [];
  const { mode, streamBytes, deltaPages, packedFromBytes, packedToBytes } = compression;
  const pairs: Pair[] = [["compression", mode], ["  QEMU sent", formatBytes(streamBytes)]];
  if (compression.cacheLimitBytes > 0) {
    pairs.push(
      ["  delta pages", String(deltaPages)],
      [
        "  delta cache",
        `${formatBytes(compression.cacheBytes)} of ${formatBytes(compression.cacheLimitBytes)}, ` +
        `${compression.cacheHits} hits, ${compression.cacheMisses} misses`,
      ],
    );
  }
  if (packedFromBytes > 0) {
    const gbPerSecond = packedFromBytes / compression.packingMs / 1e6;
    pairs.push([
      "  packed",
      `${formatBytes(packedFromBytes)} into ${formatBytes(packedToBytes)}, ` +
      `${gbPerSecond.toFixed(2)} GB/s`,
    ]);
  }
  pairs.push(...latencyPair("  put off", compression.settling));
  return pairs;
}

function formatRam({ folder, reserve, reservedBytes }: RamStatus): string {
  return reserve === "full"
    ? `${folder}, ${formatBytes(reservedBytes)} reserved`
    : `${folder}, NOT reserved: a VM that has taken over dies where that is full`;
}

function formatStandby({ state, pid, restarts, reason }: StandbyStatus): string {
  const where = pid === null ? "" : `, process ${pid}`;
  const died = restarts === 0 ? "" : `, started again ${restarts} times`;
  return `${state}${where}${died}${reason === null ? "" : ` (${reason})`}`;
}

function transactionPairs(status: EndStatus): Pair[] {
  const { lastCommitted, lastCommittedAgeMs } = status;
  const committed: Pair = lastCommittedAgeMs === null
    ? ["committed", "nothing yet"]
    : ["committed", `transaction ${lastCommitted}, ${formatAge(lastCommittedAgeMs)} ago`];
  const unchanged = status.role === "sender" && status.unchangedPages > 0
    ? ` (${status.unchangedPages} unchanged, not sent)`
    : "";
  return [
    committed,
    ["syncs", `${status.syncs}, ${formatRate(status.syncsPerSecond)}`],
    ["pages", `${status.pages} + ${status.zeroPages} zero${unchanged}`],
    ["payload", formatBytes(status.payloadBytes)],
    ["on the wire", formatBytes(status.wireBytes)],
  ];
}

function latencyPair(name: string, latency: LatencySummary): Pair[] {
  if (latency.count === 0) return [];
  const { p50, p99, max } = latency;
  return [[name, `p50 ${formatMs(p50)}, p99 ${formatMs(p99)}, max ${formatMs(max)}`]];
}
