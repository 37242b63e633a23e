import { KemariError } from "../errors.ts";
import { walkDeviceState } from "./device_state.ts";
import { parseVmdesc } from "./vmdesc.ts";
import { SECTION } from "./wire.ts";

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

const NAME = "globalstate";
const VERSION = 1;
/** The buffer; since 9.0 two flags take some of its end. */
const RUN_STATE_BYTES = 100;
const PAUSED = "paused\0";
const RUNNING = "running\0";

/**
 * Device state of a VM that goes on when it is loaded, if it was noted as a paused one. A checkpoint
 * notes what the VM was at the end of the migration's first pass: one that was stopped for it is
 * `paused` for good.
 *
 * The section is found by its bytes, as a checkpoint comes without a description: a header, the
 * buffer and a footer that agree with each other; it is looked for from the end, where QEMU has it,
 * as bytes of the guest's own stand before.
 *
 * @param device Not changed.
 * @returns A changed copy, or `device` itself where there is no such section.
 */
export function asRunning(device: Uint8Array): Uint8Array {
  const name = new TextEncoder().encode(`${String.fromCharCode(NAME.length)}${NAME}`);
  const view = new DataView(device.buffer, device.byteOffset, device.byteLength);
  const last = device.length - (name.length + 12 + RUN_STATE_BYTES + 5);
  for (let at = last; at >= 5; at--) {
    if (device[at] !== name[0] || device[at - 5] !== SECTION.QEMU_VM_SECTION_FULL) continue;
    if (!name.every((byte, i) => device[at + i] === byte)) continue;
    const fields = at + name.length;
    const state = fields + 12;
    const footer = state + RUN_STATE_BYTES;
    const isPaused = view.getUint32(fields) === 0 && view.getUint32(fields + 4) === VERSION &&
      view.getUint32(fields + 8) === PAUSED.length &&
      [...PAUSED].every((character, i) => device[state + i] === character.charCodeAt(0)) &&
      device[footer] === SECTION.QEMU_VM_SECTION_FOOTER &&
      view.getUint32(footer + 1) === view.getUint32(at - 4);
    if (!isPaused) continue;
    const running = device.slice();
    new DataView(running.buffer).setUint32(fields + 8, RUNNING.length);
    new TextEncoder().encodeInto(RUNNING, running.subarray(state));
    return running;
  }
  return device;
}
