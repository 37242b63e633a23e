import { getLogger } from "@logtape/logtape";
import type { Primary } from "../../replica/primary/primary.ts";

const log = getLogger(["kemari", "link"]);

/** Tells, once, of a QEMU that says nothing more where it has not come to an end. */
export function tellStuck(primary: Primary, now: number): void {
  const silentMs = primary.firstPass.takeStuckMs(now);
  if (silentMs === undefined) return;
  log.warn("QEMU has said nothing for {seconds} s in the middle of {place}; waiting for the rest", {
    seconds: Math.round(silentMs / 1000),
    place: primary.place,
  });
}
