/**
 * What only the text of QEMU's answer tells: its error class is `GenericError` for nearly
 * everything. All texts of QEMU's errors that anything depends on stand here.
 */
import type { QemuError } from "../errors.ts";

/**
 * Whether QEMU refuses COLO because it wants the capability return-path with it. QEMU does so from
 * 11 on; before that COLO does not go with return-path.
 */
export function wantsReturnPath({ reason }: QemuError): boolean {
  return /return-path/.test(reason);
}

/** What can be done about a reason that QEMU gives for not migrating, where that is known. */
export function adviceOnBlocker(reason: string): string | undefined {
  if (/non-migratable device|unmigratable|vfio|hostdev/i.test(reason)) {
    return "remove that device, or use one that can migrate";
  }
  if (/invtsc/i.test(reason)) return "start the guest without the invtsc CPU flag";
  return /9p|virtfs/i.test(reason) ? "unmount the shared folder in the guest" : undefined;
}
