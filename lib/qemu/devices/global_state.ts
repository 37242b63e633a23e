/**
 * Section `globalstate`: the VM's run state before it was migrated.
 *
 * Wire shape of its fields: `u32` bytes of the name with the zero that ends it, then a buffer of
 * 100 bytes that begins with the name. The section is found by its bytes, since a checkpoint, or a
 * machine with `suppress-vmdesc=on`, comes without a description: a header, the buffer and a footer
 * that fit each other. The search begins at the end, where QEMU has the section, since bytes of the
 * guest's own are before it.
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

/** The offset of the last such section's fields; `undefined` if there is none. */
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
 * The VM's run state before it was migrated, such as `running` or `paused`.
 *
 * @param device The VM's device state.
 * @returns `undefined` if the state does not have it.
 */
export function runStateOf(device: Uint8Array): string | undefined {
  const fields = findFields(device);
  return fields === undefined ? undefined : nameAt(device, fields);
}

/**
 * Makes device state of a VM that was noted as paused one of a VM that goes on when it is loaded. A
 * checkpoint has the VM's run state at the end of the migration's first pass: if the VM was stopped
 * for that, all checkpoints say `paused`.
 *
 * @param device Not changed.
 * @returns A changed copy, or `device` itself if there is no such section.
 */
export function asRunning(device: Uint8Array): Uint8Array {
  const fields = findFields(device);
  if (fields === undefined || nameAt(device, fields) !== PAUSED) return device;
  const running = device.slice();
  new DataView(running.buffer).setUint32(fields, RUNNING.length + 1);
  new TextEncoder().encodeInto(`${RUNNING}\0`, running.subarray(fields + 4));
  return running;
}
