/**
 * Facts that only the text of QEMU's error shows: its class is `GenericError` for nearly
 * everything. All texts of QEMU on which anything depends are here.
 */
import type { QemuError } from "../errors.ts";

/**
 * Whether QEMU refuses COLO because it requires the capability return-path. QEMU does so from 11
 * on; before that COLO does not work with return-path.
 */
export function wantsReturnPath({ reason }: QemuError): boolean {
  return /return-path/.test(reason);
}

/** What to do about QEMU's reason for not migrating, if that is known. */
export function adviceOnBlocker(reason: string): string | undefined {
  if (/non-migratable device|unmigratable|vfio|hostdev/i.test(reason)) {
    return "remove that device, or use one that can migrate";
  }
  if (/invtsc/i.test(reason)) return "start the guest without the invtsc CPU flag";
  return /9p|virtfs/i.test(reason) ? "unmount the shared folder in the guest" : undefined;
}
