/** The status of either end in one line. */
import { formatBytes, formatShare } from "../../units.ts";
import type { EndStatus } from "../../control/end_status.ts";

/** Summarizes a status for people. */
export function summarizeStatus(status: EndStatus): string {
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
      if (copied < 1) parts.push(`${name} ${formatShare(copied, 0)} in step`);
      if (stuck !== null) parts.push(`${name} STUCK`);
    }
  } else parts.push(`${formatBytes(status.replicaBytes)} of pages`);
  return parts.join(", ");
}
