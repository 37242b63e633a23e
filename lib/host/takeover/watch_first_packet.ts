import { getLogger } from "@logtape/logtape";
import type { Reactor } from "../system/reactor.ts";
import type { SecondaryTapDevices } from "../taps/secondary_tap_devices.ts";
import type { TakeoverClock } from "./takeover_clock.ts";

const log = getLogger(["kemari", "recv"]);

/** How exactly the first packet's time is measured, in milliseconds. */
const POLL_MS = 2;
/** How long to wait for it, from the decision to take over. */
const PATIENCE_MS = 30_000;

/**
 * Notes when the VM's first frame has left. Polls for a short time, since a tap has no event for
 * that.
 */
export function watchFirstPacket(
  takeover: TakeoverClock,
  taps: SecondaryTapDevices,
  reactor: Reactor,
): void {
  const before = taps.packetsOut;
  const cancel = reactor.every(POLL_MS, () => {
    if (taps.packetsOut > before) {
      takeover.over("firstPacket");
      log.info("first packet {ms} ms after the takeover was decided on", {
        ms: Math.round(takeover.status.firstPacketMs!),
      });
    } else if (takeover.ageMs < PATIENCE_MS) return;
    cancel();
  });
}
