/**
 * What `protect` does after a session, when the secondary was told and QEMU was released: whether
 * it tries again, and what it waits for before.
 *
 * **Why a VM is not protected again unless the secondary knows that it is here.** If QEMU ended the
 * session and the secondary has not acknowledged that, the secondary may take over. Unless the
 * operator has chosen that the VM goes on all the same, it was stopped, and a person has to look.
 */
import { type AtPrimaryEnd, type Fate, type NextTry, nextTry, type Tries } from "./primary_end.ts";
import type { VmFate } from "./vm_fate.ts";

/** What is known then. */
export interface AfterPrimarySession {
  readonly known: AtPrimaryEnd;
  /** What was decided for the VM. */
  readonly fate: Fate;
  readonly tries: Tries;
  /** What has become of the VM, if QEMU has ended the session. */
  readonly vm?: VmFate["kind"];
  /** Whether the secondary has acknowledged the farewell. */
  readonly heard: boolean;
}

/**
 * - `fail`: the protection ends, with the session's error or with what has become of the VM.
 * - `retry`: the protection begins again: at once or later (if the secondary ended the session),
 *   when the guest is awake, or some time after an operator has ended QEMU's migration, which may
 *   have been intended.
 */
export type NextStep =
  | { readonly do: "fail"; readonly with: "error" | "fate" }
  | { readonly do: "retry"; readonly when: Exclude<NextTry, "never"> | "awake" | "left-alone" };

/** Decides what follows. */
export function afterPrimarySession(
  { known, fate, tries, vm, heard }: AfterPrimarySession,
): NextStep {
  const next = nextTry(known, fate, tries);
  const isKnownToBeHere = heard || known.onSecondaryLoss === "continue";
  if (next === "never" || vm !== undefined && !isKnownToBeHere) {
    const isErrors = vm === undefined || known.isInterrupted;
    return { do: "fail", with: isErrors ? "error" : "fate" };
  }
  if (vm === undefined) return { do: "retry", when: next };
  return { do: "retry", when: vm === "asleep" ? "awake" : "left-alone" };
}
