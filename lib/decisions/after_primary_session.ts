/**
 * What `protect` does when a session has been ended, the secondary was told what it is told, and QEMU
 * was let go: whether it tries again, and what it waits for before.
 *
 * **Why a VM that nobody knows to be here is not protected again.** Where QEMU ended the session and
 * the secondary has not acknowledged it, the secondary may take over. Unless the operator has chosen
 * that the VM goes on all the same, it was stopped, and a person has to look.
 */
import { type AtPrimaryEnd, type Fate, type NextTry, nextTry, type Tries } from "./primary_end.ts";
import type { VmFate } from "./vm_fate.ts";

/** What is known then. */
export interface AfterPrimarySession {
  readonly known: AtPrimaryEnd;
  /** What was decided of the VM. */
  readonly fate: Fate;
  readonly tries: Tries;
  /** What QEMU has made of its VM, where that has ended the session. */
  readonly vm?: VmFate["kind"];
  /** Whether the secondary has acknowledged what it was told. */
  readonly heard: boolean;
}

/**
 * - `fail`: the protection ends, with the session's error or with what has become of the VM.
 * - `retry`: it begins again: at once or later (the secondary's doing), when the guest is awake, or when
 *   whoever has ended QEMU's migration has had time to mean it.
 */
export type NextStep =
  | { readonly do: "fail"; readonly with: "error" | "fate" }
  | { readonly do: "retry"; readonly when: Exclude<NextTry, "never"> | "awake" | "left-alone" };

/** Decides it. */
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
