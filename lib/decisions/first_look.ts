/**
 * What `kemari protect` does about the VM that it finds when it comes to QEMU for the first time.
 *
 * **Why a QEMU without a VM is waited for only where its disks or NICs are here.** It may be one that a
 * live migration, or a saved VM, is about to come to: its taps have to be served from then on, and a
 * `protect` that ended would leave the VM unprotected for good. Without taps nothing ties that QEMU to
 * us: it is more likely a secondary's, which somebody has named by mistake.
 */

/** What is known. */
export interface AtFirstLook {
  /** Whether QEMU waits for an incoming migration. */
  readonly isArriving: boolean;
  /** Whether something stands in the way of protecting it. */
  readonly isRefused: boolean;
  /** Whether the VM stands still, and comes back by itself or by somebody's word. */
  readonly standsStill: boolean;
  /** Whether disks or NICs of the VM's go through this process. */
  readonly hasTaps: boolean;
}

/** Decides it: what to wait for, whether to end, or to begin. */
export function atFirstLook(
  { isArriving, isRefused, standsStill, hasTaps }: AtFirstLook,
): "wait-for-arrival" | "refuse" | "wait-for-vm" | "protect" {
  if (isArriving && hasTaps) return "wait-for-arrival";
  if (isArriving || isRefused) return "refuse";
  return standsStill ? "wait-for-vm" : "protect";
}
