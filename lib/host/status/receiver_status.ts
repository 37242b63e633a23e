/** What `kemari status` tells of a receiver; the JSON is a contract. */
import type { ReceiverEnd } from "../link/receiver_end.ts";
import type { RateMeter } from "../system/rate_meter.ts";
import { vmStatus } from "./sender_status.ts";
import type { ReceiverStatus } from "../../control/receiver_status.ts";

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
