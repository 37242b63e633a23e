/**
 * ft-transaction's wire format: its constants.
 *
 * docs/PROTOCOL.md describes it for someone who writes the other end.
 */

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
  "not-loaded": 16,
} as const;
export type NackReason = keyof typeof NACK_REASON;

/** `u16` at the start of every frame: "KM". */
export const FRAME_MAGIC = 0x4b4d;
/** Bytes of a frame's header. */
export const HEADER_BYTES = 20;
/** Bytes of payload in one CONTINUE, at the most. */
export const MAX_PAYLOAD_BYTES = 1 << 20;
/** Bytes of frames in one PACKED frame, at the most, before and after packing. */
export const MAX_PACKED_BYTES = 1 << 20;
/** Bytes of payload in HELLO and in digests, at the most: these are taken whole. */
export const MAX_CONTROL_BYTES = 128 * 1024;
/** Bytes of HELLO's payload in front of the software's name. */
export const MIN_HELLO_BYTES = 58;
/** Bytes of the software's name. */
export const MAX_SOFTWARE_BYTES = 255;
/** Bytes of a tap's name, at the most; it has one at the least. */
export const MAX_TAP_NAME_BYTES = 64;
/** Bytes of data in one write or copy, at the most; longer ones are several. */
export const MAX_EVENT_DATA_BYTES = 512 * 1024;
/** Bytes of an EVENT's payload, at the most: `u8 kind, u8 n, name, u64 offset, data`. */
export const MAX_EVENT_BYTES = 2 + MAX_TAP_NAME_BYTES + 8 + MAX_EVENT_DATA_BYTES;
/** Bytes of an Ethernet frame: its header, and the longest that a TAP gives. */
export const MIN_NET_FRAME_BYTES = 14;
export const MAX_NET_FRAME_BYTES = 68 * 1024;
/** Bytes of an INPUT's payload, at the most: `u8 n, name, frame`. */
export const MAX_INPUT_BYTES = 1 + MAX_TAP_NAME_BYTES + MAX_NET_FRAME_BYTES;
/** Bytes of text in NACK, at the most. */
export const MAX_NACK_TEXT_BYTES = 4096;
/** Bytes of LEAVE's payload, at the most: a reason and a text. */
export const MAX_LEAVE_BYTES = 1 + 1024;
/** Bytes of DISK_QUERY's payload, at the most: its numbers, and the name of a tap. */
export const MAX_DISK_QUERY_BYTES = 29 + MAX_TAP_NAME_BYTES;
/** Queries of disks that may wait for their answers at the same time. */
export const MAX_DISK_QUERIES = 8;
/** Bytes of the digest of one page, or of one chunk of a disk. */
export const DIGEST_BYTES = 16;
