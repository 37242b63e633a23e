/**
 * The NBD protocol's constants, in the specification's spelling, and kemari's bounds.
 *
 * All integers on the wire are big-endian.
 *
 * @see NetworkBlockDevice/nbd doc/proto.md
 */
import { WireError, type WireFault } from "../errors.ts";

/** Magic numbers; the 64-bit ones as two halves, high first. */
export const NBDMAGIC = [0x4e42444d, 0x41474943] as const;
export const IHAVEOPT = [0x49484156, 0x454f5054] as const;
export const NBD_REP_MAGIC = [0x0003e889, 0x045565a9] as const;
export const NBD_REQUEST_MAGIC = 0x25609513;
export const NBD_SIMPLE_REPLY_MAGIC = 0x67446698;
export const NBD_STRUCTURED_REPLY_MAGIC = 0x668e33ef;

/** The server's handshake flags; the client's answer has the same bits. */
export const NBD_FLAG_FIXED_NEWSTYLE = 1 << 0;
export const NBD_FLAG_NO_ZEROES = 1 << 1;

/** Transmission flags: what an export can do. */
export const NBD_FLAG = {
  HAS_FLAGS: 1 << 0,
  READ_ONLY: 1 << 1,
  SEND_FLUSH: 1 << 2,
  SEND_FUA: 1 << 3,
  ROTATIONAL: 1 << 4,
  SEND_TRIM: 1 << 5,
  SEND_WRITE_ZEROES: 1 << 6,
  SEND_DF: 1 << 7,
  CAN_MULTI_CONN: 1 << 8,
  SEND_CACHE: 1 << 10,
  SEND_FAST_ZERO: 1 << 11,
} as const;

/** Options that a client may haggle with. */
export const NBD_OPT = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  STARTTLS: 5,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
} as const;

/** Replies to options. */
export const NBD_REP = {
  ACK: 1,
  SERVER: 2,
  INFO: 3,
  META_CONTEXT: 4,
  ERR_UNSUP: 0x80000001,
  ERR_POLICY: 0x80000002,
  ERR_INVALID: 0x80000003,
  ERR_UNKNOWN: 0x80000006,
  ERR_TOO_BIG: 0x80000009,
} as const;

/** What NBD_OPT_INFO and NBD_OPT_GO can ask for. */
export const NBD_INFO = { EXPORT: 0, NAME: 1, DESCRIPTION: 2, BLOCK_SIZE: 3 } as const;

export const NBD_CMD = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  CACHE: 5,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
} as const;

export const NBD_CMD_FLAG = {
  /** Answer only when what was written is on stable storage. */
  FUA: 1 << 0,
  /** Zeroes must take up space: no hole. */
  NO_HOLE: 1 << 1,
  /** One content chunk at the most. */
  DF: 1 << 2,
  /** One extent is enough. */
  REQ_ONE: 1 << 3,
  /** Fail rather than be as slow as writing zeroes. */
  FAST_ZERO: 1 << 4,
} as const;

export const NBD_REPLY_FLAG_DONE = 1 << 0;
export const NBD_REPLY_TYPE = {
  NONE: 0,
  OFFSET_DATA: 1,
  OFFSET_HOLE: 2,
  BLOCK_STATUS: 5,
  ERROR: 0x8001,
  ERROR_OFFSET: 0x8002,
} as const;

/** Extent flags of the `base:allocation` context. */
export const NBD_STATE_HOLE = 1 << 0;
export const NBD_STATE_ZERO = 1 << 1;

/** The errors in replies: the protocol's numbers, whatever the host's are. */
export const NBD_ERROR = {
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;
export type NbdError = typeof NBD_ERROR[keyof typeof NBD_ERROR];

/** The only metadata context that kemari has, and its id on the wire. */
export const BASE_ALLOCATION = "base:allocation";
export const BASE_ALLOCATION_ID = 1;

/** Bytes of the greeting: two magic numbers and the handshake flags. */
export const GREETING_BYTES = 18;
/** Bytes before an option's data. */
export const OPTION_HEADER_BYTES = 16;
/** Bytes before the data of a reply to an option. */
export const OPTION_REPLY_HEADER_BYTES = 20;
/** Bytes of a request, without a write's data. */
export const REQUEST_BYTES = 28;
export const SIMPLE_REPLY_BYTES = 16;
/** Bytes before a chunk's payload. */
export const CHUNK_HEADER_BYTES = 20;
/** Reserved bytes after the answer to NBD_OPT_EXPORT_NAME, which most clients waive. */
export const EXPORT_NAME_ZEROES = 124;

/** The most bytes of an option's data; longer options are skipped and refused. */
export const MAX_OPTION_BYTES = 32 * 1024;
/** The most bytes of a string: the specification's bound. */
export const MAX_STRING_BYTES = 4096;
/** The most bytes of a read or write: every client respects this bound without being told. */
export const MAX_PAYLOAD_BYTES = 32 * 1024 * 1024;
/** The most extents in a reply; a client asks again for the rest. */
export const MAX_EXTENTS = 1024;

/** Throws an error of the peer. @param offset The offset in its connection. */
export function refuse(offset: number, fault: WireFault, message: string, hint?: string): never {
  throw new WireError("nbd", offset, fault, message, { hint });
}

export function readU16(bytes: Uint8Array, at: number): number {
  return bytes[at] << 8 | bytes[at + 1];
}

export function readU32(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 24 | bytes[at + 1] << 16 | bytes[at + 2] << 8 | bytes[at + 3]) >>> 0;
}

/** @returns The number, or `Infinity` if it is 2^53 or more: beyond any export. */
export function readU64(bytes: Uint8Array, at: number): number {
  const high = readU32(bytes, at);
  return high >= 0x200000 ? Infinity : high * 0x1_0000_0000 + readU32(bytes, at + 4);
}

export function writeU16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}

export function writeU32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

/** @param value A safe integer. */
export function writeU64(bytes: Uint8Array, at: number, value: number): void {
  writeU32(bytes, at, Math.floor(value / 0x1_0000_0000));
  writeU32(bytes, at + 4, value >>> 0);
}

/** Whether `bytes[at…]` is this 64-bit magic number. */
export function isMagic(
  bytes: Uint8Array,
  at: number,
  [high, low]: readonly [number, number],
): boolean {
  return readU32(bytes, at) === high && readU32(bytes, at + 4) === low;
}
