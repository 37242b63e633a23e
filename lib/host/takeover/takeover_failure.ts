/** What the error of a takeover means for the replica and the VM. */
import { getLogger } from "@logtape/logtape";
import type { TakeoverFailure } from "../../decisions/takeover_plan.ts";
import { InterruptedError, KemariError, QemuError, TransportError } from "../../errors.ts";
import { RanAndEnded } from "./standby.ts";
import { isDiskFull } from "./write_replica.ts";

const log = getLogger(["kemari", "recv"]);

/** Tells by an error which part of a takeover has failed. */
export function takeoverFailure(error: unknown): TakeoverFailure {
  if (error instanceof RanAndEnded) return "ran";
  if (error instanceof QemuError) return "successor";
  if (!(error instanceof TransportError)) return "other";
  if (isDiskFull(error)) return "room";
  // Where the replica's own files are written, which comes before anybody gets them.
  if (error.party === "replica") return "room";
  return error.party === "fence" || error.party === "disk" ? error.party : "successor";
}

/** Logs that the replica is of no more use, if the error itself does not say so. */
export function tellSpent(error: unknown): void {
  log.error(
    "a QEMU may have let the VM run here before this end was stopped ({reason}), so the replica " +
      "is not kept: unless the VM still runs somewhere, start the guest anew",
    { reason: (error as Error).message },
  );
}

/**
 * Logs what it means that this process ends now, and what becomes of the replica.
 *
 * @param folder The folder of the replica's files, if it has files.
 */
export function tellWithoutSecondTry(error: unknown, folder: string | undefined): void {
  if (!(error instanceof KemariError) || error instanceof InterruptedError) return;
  const rest = folder === undefined
    ? "the replica ends with this process: the VM can go on at the primary alone, if it is there " +
      "still; with --control, recv keeps the replica for another kemari failover"
    : `the replica is kept in ${folder}: repair what failed, start recv again with --control, ` +
      `and run ` +
      "kemari failover; or let the VM go on at the primary, if it is there still, but never both";
  log.error("not activated: {rest}", { rest });
}

/** Between two tries of a takeover that nobody can ask for. */
export const AGAIN_MS = 5000;

/**
 * Says that the replica is kept, and what may come of it.
 *
 * @param canAsk Whether anybody can ask for another try.
 */
export function tellKept(
  step: "wait" | "again",
  reason: string,
  committed: number,
  canAsk: boolean,
): void {
  const next = step === "again"
    ? `, and trying again every ${AGAIN_MS / 1000} s`
    : canAsk
    ? ""
    : " until a sender comes back: without --control nobody can have recv try again";
  log.error("not activated: {reason}; keeping transaction {committed}{next}", {
    reason,
    committed,
    next,
  });
}
