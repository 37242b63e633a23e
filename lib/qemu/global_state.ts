import { KemariError } from "../errors.ts";
import { walkDeviceState } from "./device_state.ts";
import { parseVmdesc } from "./vmdesc.ts";

/**
 * The run state in which a VM was before it was migrated, such as `running` or `paused`.
 *
 * Wire shape of section `globalstate`: `u32` size, then a buffer with the name, ended by a zero.
 *
 * @returns `undefined` where the state does not say, or where the description is another state's: a
 *   checkpoint's devices come without their own.
 * @see QEMU migration/global_state.c
 */
export function runStateOf(
  machine: { readonly device: Uint8Array; readonly vmdescription: Uint8Array },
): string | undefined {
  try {
    const vmdesc = parseVmdesc(machine.vmdescription, 0);
    for (const section of walkDeviceState(machine.device, vmdesc, 0)) {
      if (section.name !== "globalstate") continue;
      for (const field of section.fields()) {
        if (field.name !== "runstate") continue;
        const bytes = machine.device.subarray(field.offset, field.offset + field.sizeBytes);
        const end = bytes.indexOf(0);
        return String.fromCharCode(...bytes.subarray(0, end < 0 ? bytes.length : end));
      }
    }
  } catch (error) {
    if (!(error instanceof KemariError)) throw error;
  }
  return undefined;
}
