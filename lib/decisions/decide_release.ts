/**
 * What QEMU is told when `protect` lets go of its VM.
 *
 * **Why nobody's pause is overruled.** COLO's end lets a VM run that was in it, also one that an operator
 * or QEMU itself has stopped. So a VM that stands still for another reason than ours is told to stop,
 * whatever is to happen at a loss.
 *
 * **Why an operator's migration is left alone.** A QEMU that we have not asked for a migration is in none
 * of ours: what it is in may be moving the VM. Only a VM that is the secondary's must stop all the same.
 */
import type { Fate } from "./primary_end.ts";
import type { VmFate } from "./vm_fate.ts";

/** What is known then. */
export interface AtRelease {
  /** What becomes of the VM, as `afterFarewell` decided. */
  readonly fate: Fate;
  /** What QEMU has made of it, where that has ended the session. */
  readonly vm?: VmFate["kind"];
  /** Whether it stands still, in COLO, by a stop that we gave no leave for. */
  readonly isPaused: boolean;
  /** Whether QEMU has said that an operator, or itself, has stopped it. */
  readonly wasStopped: boolean;
  /** Whether it stands still because we have it read (`StillVm`). */
  readonly isHeldByUs: boolean;
  /** Whether a migration of ours has begun, or is about to. */
  readonly hasBegun: boolean;
}

/** `settings-only`: what we changed in QEMU is put back, and its migration is left alone. */
export type Release = "continue" | "stop" | "settings-only" | "nothing";

/** Decides what QEMU is told. */
export function decideRelease(known: AtRelease): Release {
  const { fate, vm, isHeldByUs, hasBegun } = known;
  if (fate !== "is-theirs" && !hasBegun) return "settings-only";
  // From where it is stuck QEMU has no way out: see `VmFate`.
  if (vm === "stranded") return "nothing";
  return fate === "goes-on" && (isHeldByUs || !isStopped(known)) ? "continue" : "stop";
}

/**
 * Whether somebody has stopped the VM. Where COLO was over before us, QEMU itself has let the VM run,
 * and has stopped it for that first (7.2).
 */
function isStopped({ vm, isPaused, wasStopped }: AtRelease): boolean {
  return wasStopped || isPaused && vm !== "cancelled";
}
