/** The status of a receiver, for `kemari status`; the JSON is a contract. */
import type { ReceiverStatus } from "../../control/receiver_status.ts";
import type { ReceiverHost } from "../receive/receiver_host.ts";
import type { RateMeter } from "../system/rate_meter.ts";
import { encryptionStatus, vmStatus } from "./sender_status.ts";

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
    encryption: encryptionStatus(receiver.session?.encryption),
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
