import { besides } from "../system/failure_beside.ts";
import type { Reactor } from "../system/reactor.ts";
import { isTakenOver } from "../vm/release_vm.ts";
import { hasGivenUsUp, isPeers } from "./lost_secondary.ts";

/** Time for a secondary to hear that it is left. */
const LEAVE_MS = 1500;

/**
 * Runs until a secondary has heard that it is left, is gone, or has had time for it. What else fails
 * meanwhile is told, and is not the secondary's end.
 *
 * @param say Gets LEAVE out, as far as it can.
 * @throws {WireError} `taken-over` or `silence`, where the secondary says that.
 */
export async function untilLeft(
  reactor: Reactor,
  say: () => void,
  hasHeard: () => boolean,
): Promise<void> {
  const beside = besides("the secondary is told that it is left");
  let isOver = false;
  const heed = (failure: unknown) => {
    if (isTakenOver(failure) || hasGivenUsUp(failure)) throw failure;
    if (isPeers(failure)) isOver = true;
    else beside(failure);
  };
  const cancel = reactor.after(LEAVE_MS, () => isOver = true);
  try {
    try {
      say();
    } catch (failure) {
      heed(failure);
    }
    await reactor.runOn(() => isOver || hasHeard(), heed);
  } finally {
    cancel();
  }
}
