/** The ways in which QEMU's stream ends that are no good end, as errors. */
import { TransportError, WireError } from "../../errors.ts";

/** There never was one. */
export function noStream(): WireError {
  return new WireError("migration", 0, "truncated", "there is no stream: stdin is empty", {
    hint: 'start me from QEMU: migrate "exec:kemari send …"',
  });
}

/**
 * A COLO stream ended, or one that might have become one: a loss.
 *
 * @param place Where a COLO stream was; undefined where it had not asked for a checkpoint.
 * @param transaction What the secondary keeps.
 */
export function brokenOff(
  place: string | undefined,
  offset: number,
  transaction: number,
): TransportError {
  const what = place !== undefined
    ? `the COLO stream broke off in ${place}`
    : "the stream ended after its first pass without asking for a checkpoint";
  return new TransportError("QEMU", "read", `${what}, at offset ${offset}`, {
    party: "qemu",
    hint: `the secondary keeps transaction ${transaction}; where this QEMU is known to be dead, ` +
      "kemari failover there starts the VM from it",
  });
}

/** One of a loop of snapshots did not come to its end. */
export function brokenSnapshot(place: string, cause: unknown): TransportError {
  return new TransportError("QEMU", "read", `a snapshot broke off in ${place}`, {
    party: "qemu",
    cause,
  });
}
