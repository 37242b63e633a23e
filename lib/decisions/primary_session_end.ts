/**
 * Why a primary's session has ended, by what was seen of it: the error that ended it, and what QEMU has
 * said. What follows is decided in `primary_end.ts`.
 *
 * **Why the order matters.** The secondary's word that it has taken over, and that it has given us up
 * for silence, is about who may run the VM, and comes before all else. After that the VM's own end: a
 * connection that breaks in the same moment changes nothing of it. Whether a stream that ends is a death
 * or not is never told by the stream: QEMU has to be looked at.
 */
import type { Party, WireFault } from "../errors.ts";
import type { PrimaryEnd } from "./primary_end.ts";
import { endBehind, type VmFate } from "./vm_fate.ts";

/** What is known when a session ends, before QEMU is asked. */
export interface SeenPrimaryEnd {
  /** What is wrong with the bytes, where they have ended it. */
  readonly fault?: WireFault;
  /** Who is lost, where a lost connection has ended it. */
  readonly lost?: Party;
  /** QEMU's word for its VM, where that has ended it. */
  readonly said?: "vm-ended" | "guest-sleeps";
  /** Whether QEMU has said by now that its VM was shut down. */
  readonly wasShutDown: boolean;
  /** Whether whoever runs protect has ended it by now. */
  readonly isInterrupted: boolean;
}

/**
 * @returns Why it ended; `look-at-vm` where that depends on the VM's fate:
 *   {@link judgePrimaryEndByFate}.
 */
export function judgePrimaryEnd(seen: SeenPrimaryEnd): PrimaryEnd | "look-at-vm" {
  const { fault, lost, said, wasShutDown, isInterrupted } = seen;
  if (fault === "taken-over" || fault === "silence") return fault;
  if (said === "vm-ended") return "vm-ended";
  if (lost === "qemu" || said === "guest-sleeps" || wasShutDown) return "look-at-vm";
  if (fault === "busy" || fault === "storage") return fault;
  if (fault === "activating") return "busy";
  if (lost === "peer") return "secondary-lost";
  return isInterrupted ? "interrupted" : "fault";
}

/** Why it ended, with the VM looked at. */
export function judgePrimaryEndByFate(fate: VmFate, isInterrupted: boolean): PrimaryEnd {
  // Our own farewell may have cut the stream.
  return isInterrupted && fate.kind === "alive" ? "interrupted" : endBehind(fate);
}
