/** Errors for a stream of QEMU that does not end well. */
import { TransportError, WireError } from "../../errors.ts";

/** There never was a stream. */
export function noStream(): WireError {
  return new WireError("migration", 0, "truncated", "there is no stream: stdin is empty", {
    hint: 'start me from QEMU: migrate "exec:kemari send …"',
  });
}

/**
 * A COLO stream ended, or a stream that might have become COLO: a loss.
 *
 * @param place The place in a COLO stream; undefined if it had not asked for a checkpoint.
 * @param transaction The transaction that the secondary keeps.
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
    hint: `the secondary keeps transaction ${transaction}; if this QEMU is known to be dead, ` +
      "kemari failover there starts the VM from it",
  });
}

/** A snapshot did not come to its end. */
export function brokenSnapshot(place: string, cause: unknown): TransportError {
  return new TransportError("QEMU", "read", `a snapshot broke off in ${place}`, {
    party: "qemu",
    cause,
  });
}
