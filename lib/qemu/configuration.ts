import { ascii, fail, NEED_MORE } from "./ram_parser.ts";
import type { Configuration } from "./stream_events.ts";
import { LIMITS, SECTION } from "./wire.ts";

/**
 * Decodes CONFIGURATION and its subsections.
 *
 * Wire shape: `u8 0x07`, `u32` n, machine name; then any of
 * `u8 0x05, u8 n, "configuration/target-page-bits", u32 version, u32 bits`,
 * `…/capabilities, u32 version, u32 count, (u8 n, name)…` and `…/uuid, u32 version, 16 bytes`.
 *
 * @param base Stream offset of `bytes[0]`.
 * @returns The configuration and one past its last byte, or `undefined` if more bytes are needed
 *   (one byte beyond the section is needed too, to see that no subsection follows).
 * @see QEMU migration/savevm.c, vmstate_configuration
 */
export function decodeConfiguration(
  bytes: Uint8Array,
  at: number,
  end: number,
  base: number,
): { configuration: Configuration; next: number } | undefined {
  const start = at;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (end - at < 5) return undefined;
  const nameBytes = view.getUint32(at + 1);
  if (nameBytes === 0 || nameBytes > LIMITS.machineNameBytes) {
    fail(base + at + 1, "bad-length", `a machine name of ${nameBytes} bytes`);
  }
  at += 5;
  if (end - at < nameBytes + 1) return undefined;
  const machine = ascii(bytes, at, at + nameBytes, base);
  at += nameBytes;
  let targetPageBits: number | undefined;
  let uuid: string | undefined;
  const capabilities: string[] = [];
  const seen = new Set<string>();
  while (bytes[at] === SECTION.QEMU_VM_SUBSECTION) {
    const next = subsection();
    if (next === NEED_MORE || next >= end) return undefined;
    at = next;
  }
  return {
    configuration: { machine, targetPageBits, uuid, capabilities, raw: bytes.slice(start, at) },
    next: at,
  };

  function subsection(): number {
    if (end - at < 2) return NEED_MORE;
    let body = at + 2 + bytes[at + 1];
    if (end - body < 8) return NEED_MORE;
    const name = ascii(bytes, at + 2, body, base);
    if (seen.has(name)) fail(base + at, "bad-value", `subsection ${name} twice`);
    seen.add(name);
    // None of the three has ever had a second version.
    if (view.getUint32(body) !== 1) {
      fail(base + body, "bad-version", `${name} version ${view.getUint32(body)}`);
    }
    body += 4;
    switch (name) {
      case "configuration/target-page-bits":
        targetPageBits = view.getUint32(body);
        if (targetPageBits < 10 || targetPageBits > 16) {
          fail(base + body, "bad-value", `pages of 2^${targetPageBits} bytes`);
        }
        return body + 4;
      case "configuration/uuid":
        if (end - body < 16) return NEED_MORE;
        uuid = bytes.subarray(body, body + 16).toHex();
        return body + 16;
      case "configuration/capabilities": {
        const count = view.getUint32(body);
        if (count > 64) fail(base + body, "bad-length", `${count} capabilities`);
        body += 4;
        for (let i = 0; i < count; i++) {
          if (body >= end) return NEED_MORE;
          const nameEnd = body + 1 + bytes[body];
          if (nameEnd > end) return NEED_MORE;
          capabilities.push(ascii(bytes, body + 1, nameEnd, base));
          body = nameEnd;
        }
        return body;
      }
      default:
        return fail(base + at, "unsupported", `CONFIGURATION with subsection ${name}`);
    }
  }
}

/**
 * Refuses a stream with a capability that changes the format in a way that kemari does not support.
 *
 * @throws {WireError} `unsupported`, with the command that switches it off.
 */
export function refuseCapabilities(configuration: Configuration, offset: number): void {
  const unknown = configuration.capabilities.find((name) => name !== "x-ignore-shared");
  if (unknown === undefined) return;
  fail(
    offset,
    "unsupported",
    `the stream needs capability ${unknown}`,
    `migrate_set_capability ${unknown} off`,
  );
}
