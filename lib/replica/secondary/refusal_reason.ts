import { QemuError, TransportError, WireError } from "../../errors.ts";
import type { NackReason } from "../../txn/wire.ts";

/** The reason that a NACK has for what an error is about: bytes that came, a standby's answer, a bug. */
export function reasonOf(error: unknown): NackReason {
  if (error instanceof WireError) {
    if (error.fault === "bad-checksum") return "checksum";
    if (error.fault === "other-vm" || error.fault === "same-image") return error.fault;
    if (error.protocol === "transaction") {
      if (error.fault === "bad-version" || error.fault === "unsupported") return "version";
      return error.fault === "too-large" ? "too-large" : "protocol";
    }
    return "stream";
  }
  // The standby says no to this VM, or cannot be asked.
  const isStandby = error instanceof QemuError ||
    error instanceof TransportError && error.party === "standby";
  return isStandby ? "not-loaded" : "internal";
}
