import { getLogger } from "@logtape/logtape";
import type { Primary } from "../../replica/primary/primary.ts";

const log = getLogger(["kemari", "link"]);

/** Warns, once, of a QEMU that sends nothing more although its stream has not come to an end. */
export function tellStuck(primary: Primary, now: number): void {
  const silentMs = primary.firstPass.takeStuckMs(now);
  if (silentMs === undefined) return;
  log.warn("QEMU has sent nothing for {seconds} s in the middle of {place}; waiting for the rest", {
    seconds: Math.round(silentMs / 1000),
    place: primary.place,
  });
}
