/**
 * Section `globalstate`: the run state in which a VM was before it was migrated.
 *
 * Wire shape of its fields: `u32` bytes of the name with the zero that ends it, then a buffer of 100
 * bytes that begins with the name. The section is found by its bytes, since a checkpoint, or a machine
 * with `suppress-vmdesc=on`, comes without a description: a header, the buffer and a footer that agree
 * with each other. It is looked for from the end, where QEMU has it, as bytes of the guest's own
 * stand before.
 *
 * @see QEMU migration/global_state.c
 */
import { SECTION } from "../wire.ts";

const NAME = "globalstate";
const VERSION = 1;
/** The buffer; since 9.0 two flags take some of its end. */
const RUN_STATE_BYTES = 100;
const PAUSED = "paused";
const RUNNING = "running";

/** Where the fields of the last such section begin; `undefined` where there is none. */
function findFields(device: Uint8Array): number | undefined {
  const name = new TextEncoder().encode(`${String.fromCharCode(NAME.length)}${NAME}`);
  const view = new DataView(device.buffer, device.byteOffset, device.byteLength);
  const last = device.length - (name.length + 12 + RUN_STATE_BYTES + 5);
  for (let at = last; at >= 5; at--) {
    if (device[at] !== name[0] || device[at - 5] !== SECTION.QEMU_VM_SECTION_FULL) continue;
    if (!name.every((byte, i) => device[at + i] === byte)) continue;
    const fields = at + name.length + 8;
    const nameBytes = view.getUint32(fields);
    const footer = fields + 4 + RUN_STATE_BYTES;
    const isSection = view.getUint32(fields - 8) === 0 && view.getUint32(fields - 4) === VERSION &&
      nameBytes > 0 && nameBytes <= RUN_STATE_BYTES && device[fields + 4 + nameBytes - 1] === 0 &&
      device[footer] === SECTION.QEMU_VM_SECTION_FOOTER &&
      view.getUint32(footer + 1) === view.getUint32(at - 4);
    if (isSection) return fields;
  }
  return undefined;
}

function nameAt(device: Uint8Array, fields: number): string {
  const start = fields + 4;
  const end = device.indexOf(0, start);
  return String.fromCharCode(...device.subarray(start, end));
}

/**
 * The run state in which a VM was before it was migrated, such as `running` or `paused`.
 *
 * @param device Its device state.
 * @returns `undefined` where the state does not say.
 */
export function runStateOf(device: Uint8Array): string | undefined {
  const fields = findFields(device);
  return fields === undefined ? undefined : nameAt(device, fields);
}

/**
 * Device state of a VM that goes on when it is loaded, if it was noted as a paused one. A checkpoint
 * notes what the VM was at the end of the migration's first pass: one that was stopped for it is
 * `paused` for good.
 *
 * @param device Not changed.
 * @returns A changed copy, or `device` itself where there is no such section.
 */
export function asRunning(device: Uint8Array): Uint8Array {
  const fields = findFields(device);
  if (fields === undefined || nameAt(device, fields) !== PAUSED) return device;
  const running = device.slice();
  new DataView(running.buffer).setUint32(fields, RUNNING.length + 1);
  new TextEncoder().encodeInto(`${RUNNING}\0`, running.subarray(fields + 4));
  return running;
}
