/**
 * The records of a migration stream other than RAM pages and device state.
 *
 * Every decoder takes `bytes[at, end)` with `base`, the stream offset of `bytes[0]`, and returns
 * `undefined` if the record is not complete.
 *
 * @see QEMU migration/savevm.c, qemu_loadvm_state_main()
 */
import { ascii, fail } from "./ram_parser.ts";
import { COMMAND, nameOf, QEMU_VM_FILE_MAGIC, QEMU_VM_FILE_VERSION, SECTION } from "./wire.ts";

/** The only version of the `ram` section since 2011. */
const RAM_SECTION_VERSION = 4;

/** The data lengths, in bytes, of the COMMANDs that are accepted. */
const COMMAND_DATA_BYTES: ReadonlyMap<number, readonly number[]> = new Map([
  [COMMAND.MIG_CMD_OPEN_RETURN_PATH, [0]],
  [COMMAND.MIG_CMD_PING, [4]],
  // Two u64 (page sizes), or nothing when RAM itself is not to be postcopied.
  [COMMAND.MIG_CMD_POSTCOPY_ADVISE, [0, 16]],
  [COMMAND.MIG_CMD_ENABLE_COLO, [0]],
  [COMMAND.MIG_CMD_SWITCHOVER_START, [0]],
]);

/**
 * `u32` "QEVM", `u32` version.
 *
 * @returns The version and one past the header.
 * @throws {WireError} `bad-magic`, as soon as four bytes are there; `bad-version`.
 */
export function decodeStreamHeader(
  bytes: Uint8Array,
  at: number,
  end: number,
  base: number,
): { version: number; next: number } | undefined {
  if (end - at < 4) return undefined;
  const magic = u32(bytes, at);
  if (magic !== QEMU_VM_FILE_MAGIC) {
    fail(
      base + at,
      "bad-magic",
      `not a QEMU migration stream: it begins with 0x${magic.toString(16).padStart(8, "0")}`,
      'feed it what QEMU sends to migrate "exec:…"',
    );
  }
  if (end - at < 8) return undefined;
  const version = u32(bytes, at + 4);
  if (version !== QEMU_VM_FILE_VERSION) {
    fail(base + at + 4, "bad-version", `migration stream version ${version}, not 3`);
  }
  return { version, next: at + 8 };
}

/**
 * `u8 0x08, u16 command, u16 n`, n bytes of data.
 *
 * @returns The command, a copy of its data, and one past it.
 * @throws {WireError} `unsupported` for a command that changes the stream in a way that is not
 *   supported; `bad-length` for data of a wrong length.
 */
export function decodeCommand(
  bytes: Uint8Array,
  at: number,
  end: number,
  base: number,
): { command: number; data: Uint8Array; next: number } | undefined {
  if (end - at < 5) return undefined;
  const command = u16(bytes, at + 1);
  const lengthBytes = u16(bytes, at + 3);
  const lengths = COMMAND_DATA_BYTES.get(command);
  if (lengths === undefined) {
    fail(
      base + at,
      "unsupported",
      `command ${command} (${nameOf(COMMAND, command)})`,
      "kemari takes precopy streams: do not start postcopy",
    );
  }
  if (!lengths.includes(lengthBytes)) {
    fail(
      base + at + 3,
      "bad-length",
      `command ${command} (${nameOf(COMMAND, command)}) with ${lengthBytes} bytes of data, ` +
        `not ${lengths.join(" or ")}`,
    );
  }
  const next = at + 5 + lengthBytes;
  return end < next ? undefined : { command, data: bytes.slice(at + 5, next), next };
}

/**
 * `u8 0x01, u32 section id, u8 n, idstr, u32 instance, u32 version`; the payload follows.
 *
 * @throws {WireError} `unsupported`, by name, for any iterable section but `ram`.
 */
export function decodeSectionStart(
  bytes: Uint8Array,
  at: number,
  end: number,
  base: number,
): { sectionId: number; next: number } | undefined {
  if (end - at < 6) return undefined;
  const nameEnd = at + 6 + bytes[at + 5];
  if (end - nameEnd < 8) return undefined;
  const name = ascii(bytes, at + 6, nameEnd, base);
  if (name !== "ram") {
    fail(
      base + at,
      "unsupported",
      `iterable section ${JSON.stringify(name)}`,
      name === "dirty-bitmap"
        ? "migrate_set_capability dirty-bitmaps off"
        : `remove the device or capability behind ${name}`,
    );
  }
  const version = u32(bytes, nameEnd + 4);
  if (version !== RAM_SECTION_VERSION) {
    fail(base + nameEnd + 4, "bad-version", `ram section version ${version}`);
  }
  return { sectionId: u32(bytes, at + 1), next: nameEnd + 8 };
}

/** `u8 0x02` or `0x03`, `u32 section id` of a started section; its payload follows. */
export function decodeSectionPart(
  bytes: Uint8Array,
  at: number,
  end: number,
  base: number,
  startedId: number,
): number | undefined {
  if (end - at < 5) return undefined;
  const id = u32(bytes, at + 1);
  if (id !== startedId) {
    fail(base + at, "bad-value", `section ${id} goes on, but was never started`);
  }
  return at + 5;
}

/** `u8 0x7e, u32 section id`: closes a section. */
export function decodeFooter(
  bytes: Uint8Array,
  at: number,
  end: number,
  base: number,
  sectionId: number,
): number | undefined {
  if (bytes[at] !== SECTION.QEMU_VM_SECTION_FOOTER) {
    fail(
      base + at,
      "bad-value",
      `byte 0x${bytes[at].toString(16)} where the ram section's footer belongs`,
    );
  }
  if (end - at < 5) return undefined;
  const id = u32(bytes, at + 1);
  if (id !== sectionId) {
    fail(base + at + 1, "bad-value", `a footer of section ${id} behind ${sectionId}`);
  }
  return at + 5;
}

/** Refuses a SECTION_FULL before the RAM, of a device that saves its state early. */
export function refuseEarlyDevice(
  bytes: Uint8Array,
  at: number,
  end: number,
  base: number,
): undefined {
  if (end - at < 6 || end - at < 6 + bytes[at + 5]) return undefined;
  const name = ascii(bytes, at + 6, at + 6 + bytes[at + 5], base);
  fail(base + at, "unsupported", `device ${JSON.stringify(name)} in front of the RAM`);
}

/** The big-endian `u16` at `bytes[at]`. */
function u16(bytes: Uint8Array, at: number): number {
  return bytes[at] << 8 | bytes[at + 1];
}

/** The big-endian `u32` at `bytes[at]`. */
export function u32(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 24 | bytes[at + 1] << 16 | bytes[at + 2] << 8 | bytes[at + 3]) >>> 0;
}
