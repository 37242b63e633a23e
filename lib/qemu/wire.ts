/**
 * Constants of QEMU's migration stream, in QEMU's own spelling.
 *
 * @see QEMU migration/savevm.c, migration/ram.c, migration/colo.c
 */

/** `u32` that opens every migration stream: "QEVM". */
export const QEMU_VM_FILE_MAGIC = 0x5145564d;
/** `u32` after the magic; the only version in use since 2007. */
export const QEMU_VM_FILE_VERSION = 3;

/** The byte that opens a section. */
export const SECTION = {
  QEMU_VM_EOF: 0x00,
  QEMU_VM_SECTION_START: 0x01,
  QEMU_VM_SECTION_PART: 0x02,
  QEMU_VM_SECTION_END: 0x03,
  QEMU_VM_SECTION_FULL: 0x04,
  QEMU_VM_SUBSECTION: 0x05,
  QEMU_VM_VMDESCRIPTION: 0x06,
  QEMU_VM_CONFIGURATION: 0x07,
  QEMU_VM_COMMAND: 0x08,
  QEMU_VM_SECTION_FOOTER: 0x7e,
} as const;

/** `u16` of a COMMAND section. */
export const COMMAND = {
  MIG_CMD_OPEN_RETURN_PATH: 1,
  MIG_CMD_PING: 2,
  MIG_CMD_POSTCOPY_ADVISE: 3,
  MIG_CMD_POSTCOPY_LISTEN: 4,
  MIG_CMD_POSTCOPY_RUN: 5,
  MIG_CMD_POSTCOPY_RAM_DISCARD: 6,
  MIG_CMD_PACKAGED: 7,
  MIG_CMD_ENABLE_COLO: 8,
  MIG_CMD_POSTCOPY_RESUME: 9,
  MIG_CMD_RECV_BITMAP: 10,
  MIG_CMD_SWITCHOVER_START: 11,
} as const;

/** Flags in the low bits of the `u64` before a RAM record. */
export const RAM_SAVE_FLAG = {
  ZERO: 0x02,
  MEM_SIZE: 0x04,
  PAGE: 0x08,
  EOS: 0x10,
  CONTINUE: 0x20,
  XBZRLE: 0x40,
  HOOK: 0x80,
  MULTIFD_FLUSH: 0x200,
} as const;

/** `u32` messages of COLO, both directions. */
export const COLO_MESSAGE = {
  CHECKPOINT_READY: 0,
  CHECKPOINT_REQUEST: 1,
  CHECKPOINT_REPLY: 2,
  VMSTATE_SEND: 3,
  VMSTATE_SIZE: 4,
  VMSTATE_RECEIVED: 5,
  VMSTATE_LOADED: 6,
} as const;

/** `u16` type of a return-path message (to QEMU): `u16 type, u16 length, data`. */
export const RETURN_PATH = {
  MIG_RP_MSG_SHUT: 1,
  MIG_RP_MSG_PONG: 2,
} as const;

/** The name of a wire constant, for messages. */
export function nameOf(table: Readonly<Record<string, number>>, value: number): string {
  for (const [name, constant] of Object.entries(table)) if (constant === value) return name;
  return `0x${value.toString(16)}`;
}

/** The limits that kemari checks in a stream before it allocates anything. */
export const LIMITS = {
  /** Bytes of all RAM blocks together: 16 TiB. */
  ramBytes: 2 ** 44,
  /** RAM blocks in one stream. */
  blocks: 1024,
  /** Bytes of one machine's device state, without RAM. */
  deviceStateBytes: 256 * 2 ** 20,
  /** Bytes of the machine name in CONFIGURATION. */
  machineNameBytes: 1024,
  /** Pages of one RAM block: page numbers are unsigned 32-bit integers. */
  blockPages: 2 ** 32,
} as const;

/** The migration protocol's page size on every target that kemari has met. */
export const DEFAULT_PAGE_BYTES = 4096;

/** One RAM block as MEM_SIZE announces it. */
export interface RamBlock {
  /** QEMU's `idstr`, such as `pc.ram`; ASCII. */
  readonly name: string;
  readonly lengthBytes: number;
}
