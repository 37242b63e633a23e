/** The taps' part of `kemari status` for people. */
import { formatBytes, formatPercentiles, formatShare } from "../../units.ts";
import type { DiskStatus, TapStatus } from "../../control/tap_status.ts";
import type { LatencySummary } from "../../control/recent_durations.ts";

/** Some lines for each disk, and the parts of the time for which output is held. */
export function tapPairs(taps: TapStatus): [string, string][] {
  const pairs: [string, string][] = [];
  for (const [name, net] of Object.entries(taps.nets)) {
    pairs.push([
      `net ${name}`,
      `${net.heldFrames} frames held, ${net.releasedFrames} released, ` +
      `${net.passedIn} for the guest`,
    ]);
  }
  for (const disk of taps.disks) pairs.push(...diskPairs(disk));
  for (const [name, latency] of Object.entries(taps.latency)) {
    const { trigger, commit, release } = latency;
    if (trigger.count === 0) continue;
    pairs.push(
      [`${name} events`, `to their trigger ${percentiles(trigger)}`],
      ["", `trigger to commit ${percentiles(commit)}`],
      ["", `commit to release ${percentiles(release)}`],
    );
  }
  return pairs;
}

function diskPairs(disk: DiskStatus): [string, string][] {
  const { resync, sizeBytes } = disk;
  const inStep = disk.mode === "shared"
    ? "shared"
    : disk.copied === 1
    ? "in step"
    : `${formatShare(disk.copied)} in step`;
  const pairs: [string, string][] = [[
    `disk ${disk.name}`,
    `${inStep}, ${
      formatBytes(disk.heldBytes)
    } held, ${disk.unreleasedWrites} writes not in the image`,
  ]];
  if (resync.doneBytes > 0) {
    pairs.push([
      "  compared",
      `${formatBytes(resync.doneBytes)} of ${formatBytes(sizeBytes)}: ` +
      `${formatBytes(resync.equalBytes)} equal, ${formatBytes(resync.sentBytes)} sent ` +
      `(${formatShare(resync.sentBytes / resync.doneBytes)})`,
    ]);
  }
  if (disk.throttled > 0) {
    pairs.push([
      "  slowed down",
      `${disk.throttled} times, ${(disk.throttledMs / 1000).toFixed(1)} s, ` +
      `above ${formatBytes(disk.limitBytes)} held`,
    ]);
  }
  if (disk.stalledMs >= 1000) {
    const seconds = (disk.stalledMs / 1000).toFixed(0);
    pairs.push([
      "  STALLED",
      `its storage has not answered for ${seconds} s: ${disk.waiting} wait`,
    ]);
  }
  if (disk.stuck !== null) pairs.push(["  STUCK", disk.stuck]);
  return pairs;
}

function percentiles({ p50, p99 }: LatencySummary): string {
  return formatPercentiles(p50, p99);
}
