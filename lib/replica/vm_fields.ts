/** A VM's identity as fields of HELLO. */
import { Buffer } from "node:buffer";
import { foreignText } from "../foreign_text.ts";
import type { VmIdentity } from "../decisions/whose_replica.ts";
import { HELLO_FIELD, type HelloField } from "../txn/hello_fields.ts";
import { refuse } from "../txn/wire_fault.ts";

/** The most bytes of a VM's name that are sent and kept. */
const MAX_VM_NAME_BYTES = 200;

const BINARY: readonly [keyof VmIdentity, number][] = [
  ["uuid", HELLO_FIELD.vmUuid],
  ["process", HELLO_FIELD.vmProcess],
  ["shape", HELLO_FIELD.vmShape],
];

/** Characters that are replaced in a name: they would end a line, or move the cursor. */
const CONTROL = /[\p{Cc}\p{Zl}\p{Zp}]/u;

/** A name as it is sent, kept and compared: completely visible, and not too long. */
export function plainVmName(name: string): string {
  const plain = foreignText(name, 4 * MAX_VM_NAME_BYTES);
  const bytes = new TextEncoder().encode(plain);
  if (bytes.length <= MAX_VM_NAME_BYTES) return plain;
  return new TextDecoder().decode(bytes.subarray(0, MAX_VM_NAME_BYTES)).replace(/\ufffd+$/, "");
}

/** Encodes a VM's identity, as far as known. */
export function encodeVm(vm: VmIdentity): HelloField[] {
  const fields: HelloField[] = BINARY.flatMap(([key, tag]) => {
    const digits = vm[key];
    return digits === undefined ? [] : [{ tag, bytes: new Uint8Array(Buffer.from(digits, "hex")) }];
  });
  const name = new TextEncoder().encode(plainVmName(vm.name ?? ""));
  if (name.length > 0) fields.push({ tag: HELLO_FIELD.vmName, bytes: name });
  return fields;
}

/** @returns Undefined if it is not UTF-8. */
function textOf(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/**
 * Decodes a sender's VM; an older sender's HELLO has no such fields.
 *
 * @param offset Of HELLO's payload, for errors.
 * @throws {WireError} `bad-length`; or `bad-value` for a field that comes twice or an invalid name.
 */
export function decodeVm(fields: readonly HelloField[] = [], offset: number): VmIdentity {
  const seen = new Map<number, Uint8Array>();
  for (const { tag, bytes } of fields) {
    const isName = tag === HELLO_FIELD.vmName;
    if (!isName && !BINARY.some(([, known]) => known === tag)) continue;
    if (seen.has(tag)) refuse(offset, "bad-value", `HELLO with field ${tag} twice`);
    const fits = isName
      ? bytes.length >= 1 && bytes.length <= MAX_VM_NAME_BYTES
      : bytes.length === 16;
    if (!fits) refuse(offset, "bad-length", `HELLO with ${bytes.length} bytes in field ${tag}`);
    seen.set(tag, bytes);
  }
  const vm: { -readonly [Key in keyof VmIdentity]: VmIdentity[Key] } = {};
  for (const [key, tag] of BINARY) {
    const bytes = seen.get(tag);
    if (bytes !== undefined) vm[key] = Buffer.from(bytes).toString("hex");
  }
  const name = seen.get(HELLO_FIELD.vmName);
  if (name !== undefined) {
    const text = textOf(name);
    if (text === undefined || CONTROL.test(text)) {
      refuse(offset, "bad-value", "HELLO with a VM's name that is none");
    }
    vm.name = plainVmName(text);
  }
  return vm;
}
