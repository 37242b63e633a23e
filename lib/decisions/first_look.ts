/**
 * What `kemari protect` does with the VM that it finds when it first connects to QEMU.
 *
 * **Why `protect` waits for a QEMU without a VM only if it serves disks or NICs.** A live migration
 * or a saved VM may be about to come to that QEMU: the taps have to be served from then on, and a
 * `protect` that ended would leave the VM unprotected for good. Without taps, QEMU does not depend
 * on this process, and is more likely a secondary's, named by mistake.
 */

/** What is known. */
export interface AtFirstLook {
  /** Whether QEMU waits for an incoming migration. */
  readonly isArriving: boolean;
  /** Whether the VM cannot be protected. */
  readonly isRefused: boolean;
  /** Whether the VM stands still, and will run again by itself or when an operator lets it. */
  readonly standsStill: boolean;
  /** Whether disks or NICs of the VM go through this process. */
  readonly hasTaps: boolean;
}

/** Decides what to wait for, whether to end, or to begin. */
export function atFirstLook(
  { isArriving, isRefused, standsStill, hasTaps }: AtFirstLook,
): "wait-for-arrival" | "refuse" | "wait-for-vm" | "protect" {
  if (isArriving && hasTaps) return "wait-for-arrival";
  if (isArriving || isRefused) return "refuse";
  return standsStill ? "wait-for-vm" : "protect";
}
