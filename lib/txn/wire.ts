/**
 * ft-transaction's wire format: constants, and the frame header.
 *
 * docs/PROTOCOL.md describes it for someone who writes the other end.
 */
import { strayText } from "./stray_text.ts";
import { refuse } from "./wire_fault.ts";

/** What a frame asks for or says. BEGIN to NACK keep the names of the original Kemari. */
export const TXN = {
  HELLO: 1,
  BEGIN: 2,
  CONTINUE: 3,
  COMMIT: 4,
  CANCEL: 5,
  ACK: 6,
  NACK: 7,
  EVENT: 8,
  RELEASED: 9,
  HEARTBEAT: 10,
  HANDOVER: 11,
  DIGEST_QUERY: 12,
  DIGEST: 13,
  PACKED: 14,
  LEAVE: 18,
  LEFT: 19,
  DISK_QUERY: 20,
  DISK_DIGEST: 21,
  INPUT: 22,
} as const;

/** Flags of BEGIN. */
export const BEGIN_FLAG = {
  /** The payload is a whole migration stream; without it, a COLO checkpoint. */
  FULL: 0x01,
  /** With FULL: pages that the stream does not mention keep the replica's content. */
  BASED: 0x02,
} as const;

/** Flag of DIGEST and DISK_DIGEST: the last one of an answer. */
export const DIGEST_LAST = 0x01;

/** Why a transaction or a peer was refused; the text behind it is for people. */
export const NACK_REASON = {
  version: 1,
  protocol: 2,
  stream: 3,
  checksum: 4,
  "too-large": 5,
  busy: 6,
  internal: 7,
  stopping: 8,
  "taken-over": 9,
  storage: 10,
  "other-vm": 11,
  "same-image": 12,
  silence: 14,
  activating: 15,
} as const;
export type NackReason = keyof typeof NACK_REASON;

/** `u16` at the start of every frame: "KM". */
export const FRAME_MAGIC = 0x4b4d;
/** Bytes of a frame's header. */
export const HEADER_BYTES = 20;
/** Bytes of payload in one CONTINUE or EVENT frame, at the most. */
export const MAX_PAYLOAD_BYTES = 1 << 20;
/** Bytes of frames in one PACKED frame, at the most, before and after packing. */
export const MAX_PACKED_BYTES = 1 << 20;
/** Bytes of payload in any other frame, at the most: it is taken whole. */
export const MAX_CONTROL_BYTES = 128 * 1024;
/** Bytes of text in NACK, at the most. */
export const MAX_NACK_TEXT_BYTES = 4096;
/** Bytes of LEAVE's payload, at the most: a reason and a text. */
export const MAX_LEAVE_BYTES = 1 + 1024;
/** Bytes of DISK_QUERY's payload, at the most: its numbers, and the name of a tap. */
export const MAX_DISK_QUERY_BYTES = 29 + 64;
/** Queries of disks that may wait for their answers at the same time. */
export const MAX_DISK_QUERIES = 8;
/** Bytes of the digest of one page, or of one chunk of a disk. */
export const DIGEST_BYTES = 16;

/** Bytes of payload that each command may have, at the most; only CONTINUE and EVENT are streamed. */
const FRAME_BYTES: ReadonlyMap<number, number> = new Map([
  [TXN.HELLO, MAX_CONTROL_BYTES],
  [TXN.BEGIN, 0],
  [TXN.CONTINUE, MAX_PAYLOAD_BYTES],
  [TXN.COMMIT, 12],
  [TXN.CANCEL, 0],
  [TXN.ACK, 0],
  [TXN.NACK, 2 + MAX_NACK_TEXT_BYTES],
  [TXN.EVENT, MAX_PAYLOAD_BYTES],
  [TXN.RELEASED, 0],
  [TXN.HEARTBEAT, 0],
  [TXN.HANDOVER, 0],
  [TXN.DIGEST_QUERY, 8],
  [TXN.DIGEST, MAX_CONTROL_BYTES],
  [TXN.PACKED, MAX_PACKED_BYTES],
  [TXN.LEAVE, MAX_LEAVE_BYTES],
  [TXN.LEFT, 0],
  [TXN.DISK_QUERY, MAX_DISK_QUERY_BYTES],
  [TXN.DISK_DIGEST, MAX_CONTROL_BYTES],
  [TXN.INPUT, MAX_CONTROL_BYTES],
]);

/** Flags that each command may have; none for those that are not here. */
const FRAME_FLAGS: ReadonlyMap<number, number> = new Map([
  [TXN.BEGIN, BEGIN_FLAG.FULL | BEGIN_FLAG.BASED],
  [TXN.DIGEST, DIGEST_LAST],
  [TXN.DISK_DIGEST, DIGEST_LAST],
]);

/** A frame's header. */
export interface FrameHeader {
  readonly command: number;
  readonly flags: number;
  /** Place in its transaction: BEGIN is 0. */
  readonly sequence: number;
  /** The transaction; 0 where the frame belongs to none. */
  readonly transaction: number;
  readonly lengthBytes: number;
}

/**
 * Encodes a header: `u16 magic, u8 command, u8 flags, u32 sequence, u64 transaction, u32 length`.
 *
 * @returns 20 bytes that the caller owns.
 */
export function encodeHeader(header: FrameHeader): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, FRAME_MAGIC);
  view.setUint8(2, header.command);
  view.setUint8(3, header.flags);
  view.setUint32(4, header.sequence);
  view.setBigUint64(8, BigInt(header.transaction));
  view.setUint32(16, header.lengthBytes);
  return bytes;
}

/**
 * Decodes the header at `bytes[at]`.
 *
 * @param offset Of `bytes[at]` in the connection, for errors.
 * @returns `undefined` if fewer than 20 bytes are there.
 * @throws {WireError} `bad-magic`, `bad-value` or `bad-length`.
 */
export function decodeHeader(
  bytes: Uint8Array,
  at: number,
  end: number,
  offset: number,
): FrameHeader | undefined {
  if (end - at < HEADER_BYTES) {
    if (end - at >= 2) checkMagic(bytes, at, end, offset);
    return undefined;
  }
  checkMagic(bytes, at, end, offset);
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, HEADER_BYTES);
  const command = view.getUint8(2);
  const most = FRAME_BYTES.get(command);
  if (most === undefined) {
    return refuse(offset + 2, "bad-value", `a frame with command ${command}`);
  }
  const flags = view.getUint8(3);
  if ((flags & ~(FRAME_FLAGS.get(command) ?? 0)) !== 0) {
    refuse(offset + 3, "bad-value", `command ${command} with flags 0x${flags.toString(16)}`);
  }
  if (view.getUint32(8) >= 2 ** 21) refuse(offset + 8, "bad-value", "a transaction id over 2^53");
  const lengthBytes = view.getUint32(16);
  if (lengthBytes > most) {
    refuse(
      offset + 16,
      "bad-length",
      `command ${command} with ${lengthBytes} bytes; at most ${most} are taken`,
    );
  }
  return {
    command,
    flags,
    sequence: view.getUint32(4),
    transaction: view.getUint32(8) * 0x1_0000_0000 + view.getUint32(12),
    lengthBytes,
  };
}

function checkMagic(bytes: Uint8Array, at: number, end: number, offset: number): void {
  const magic = bytes[at] << 8 | bytes[at + 1];
  if (magic === FRAME_MAGIC) return;
  const found = `a frame begins with 0x${magic.toString(16).padStart(4, "0")}`;
  const text = strayText(bytes, at, end);
  refuse(
    offset,
    "bad-magic",
    `the peer does not speak kemari: ${found}` +
      (text === undefined ? "" : `; the peer said "${text}"`),
    text === undefined
      ? "is the other end `kemari send` or `kemari recv`, and of this version?"
      : "another service answers there; or, behind exec:ssh, a login shell has printed this: what " +
        ".bashrc, .profile and the like print is for interactive shells only",
  );
}
