/**
 * Why a primary's session has ended, judged by the error that ended it and by what QEMU has said.
 * What follows is decided in `primary_end.ts`.
 *
 * **Why the order matters.** If the secondary says that it has taken over, or that it has given
 * this primary up for silence, that decides which host may run the VM, and comes first. Then the
 * VM's own end: a connection that breaks at the same moment does not change it. Whether the end of
 * QEMU's stream is a crash, the stream never shows: QEMU has to be examined.
 */
import type { Party, WireFault } from "../errors.ts";
import type { PrimaryEnd } from "./primary_end.ts";
import { endBehind, type VmFate } from "./vm_fate.ts";

/** What is known when a session ends, before QEMU is asked. */
export interface SeenPrimaryEnd {
  /** The fault of the peer's bytes, if they have ended the session. */
  readonly fault?: WireFault;
  /** The party that is lost, if a lost connection has ended the session. */
  readonly lost?: Party;
  /** QEMU's report on its VM, if that has ended the session. */
  readonly said?: "vm-ended" | "guest-sleeps";
  /** Whether QEMU has said by now that its VM was shut down. */
  readonly wasShutDown: boolean;
  /** Whether the operator has ended protect by now. */
  readonly isInterrupted: boolean;
}

/**
 * @returns Why it ended; `look-at-vm` if that depends on the VM's fate: {@link
 *   judgePrimaryEndByFate}.
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

/** Why it ended, when the VM's fate is known. */
export function judgePrimaryEndByFate(fate: VmFate, isInterrupted: boolean): PrimaryEnd {
  // This end's own farewell may have cut the stream.
  return isInterrupted && fate.kind === "alive" ? "interrupted" : endBehind(fate);
}
