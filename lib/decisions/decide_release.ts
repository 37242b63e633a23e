/**
 * What QEMU is told when `protect` releases its VM.
 *
 * **Why nobody's pause is overruled.** The end of COLO lets its VM run, also a VM that an operator
 * or QEMU itself has stopped. So if the VM stands still for another reason than kemari's, QEMU is
 * told to stop it, whatever is to happen at a loss.
 *
 * **Why an operator's migration is left alone.** If kemari has not asked QEMU for a migration, then
 * a migration under way is an operator's, who may be moving the VM. Only a VM that the secondary
 * has taken over must stop all the same.
 */
import type { Fate } from "./primary_end.ts";
import type { VmFate } from "./vm_fate.ts";

/** What is known then. */
export interface AtRelease {
  /** What becomes of the VM, as `afterFarewell` decided. */
  readonly fate: Fate;
  /** What has become of the VM, if QEMU has ended the session. */
  readonly vm?: VmFate["kind"];
  /** Whether the VM stands still, in COLO, by a stop without kemari's leave. */
  readonly isPaused: boolean;
  /** Whether QEMU has said that an operator, or QEMU itself, has stopped the VM. */
  readonly wasStopped: boolean;
  /** Whether the VM is stopped because its RAM is being read (`StillVm`). */
  readonly isHeldByUs: boolean;
  /** Whether a migration of kemari's has begun, or is about to begin. */
  readonly hasBegun: boolean;
}

/** `settings-only`: QEMU's settings are restored, and its migration is left alone. */
export type Release = "continue" | "stop" | "settings-only" | "nothing";

/** Decides what QEMU is told. */
export function decideRelease(known: AtRelease): Release {
  const { fate, vm, isHeldByUs, hasBegun } = known;
  if (fate !== "is-theirs" && !hasBegun) return "settings-only";
  // QEMU cannot leave this state: see `VmFate`.
  if (vm === "stranded") return "nothing";
  return fate === "goes-on" && (isHeldByUs || !isStopped(known)) ? "continue" : "stop";
}

/**
 * Whether somebody has stopped the VM. If COLO ended by itself, QEMU has let the VM run, and QEMU
 * 7.2 stops it first.
 */
function isStopped({ vm, isPaused, wasStopped }: AtRelease): boolean {
  return wasStopped || isPaused && vm !== "cancelled";
}
