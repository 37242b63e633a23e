import { FRAME_RULES, frameName } from "./frame_rules.ts";
import { strayText } from "./stray_text.ts";
import { FRAME_MAGIC, HEADER_BYTES } from "./wire.ts";
import { refuse } from "./wire_fault.ts";

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

/** Of each command: its bounds, as the header shows them. Undefined for what is no command. */
const BOUNDS = Array.from({ length: 256 }, (_, command) => {
  const name = frameName(command);
  if (name === undefined) return undefined;
  const { bytes, flags, sequence, transaction, payloadNeeds } = FRAME_RULES[name];
  return {
    name,
    least: payloadNeeds === undefined ? bytes[0] : 0,
    most: bytes[1],
    /** A bit for each value that is allowed: none is as large as 32. */
    flags: flags.reduce((values, value) => values | 1 << value, 0),
    isCounted: sequence === "counted",
    mayBeZero: transaction === "none" || transaction === "refused",
    mayBeMore: transaction !== "none",
  };
});

/**
 * Decodes the header at `bytes[at]`, and holds it against what is true of such a frame wherever it
 * stands.
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
  const bounds = BOUNDS[command];
  if (bounds === undefined) {
    return refuse(offset + 2, "bad-value", `a frame with command ${command}`);
  }
  const { name } = bounds;
  const flags = view.getUint8(3);
  if (flags >= 32 || (bounds.flags & 1 << flags) === 0) {
    refuse(offset + 3, "bad-value", `${name} with flags 0x${flags.toString(16)}`);
  }
  const sequence = view.getUint32(4);
  if (sequence !== 0 && !bounds.isCounted) {
    refuse(offset + 4, "bad-value", `${name} with sequence ${sequence}, where 0 belongs`);
  }
  const high = view.getUint32(8);
  const transaction = high * 0x1_0000_0000 + view.getUint32(12);
  if (high >= 2 ** 21) {
    const id = view.getBigUint64(8);
    refuse(offset + 8, "bad-value", `${name} of transaction ${id}, which is not below 2^53`);
  }
  if (transaction === 0 ? !bounds.mayBeZero : !bounds.mayBeMore) {
    const what = transaction === 0
      ? "of transaction 0, which is none"
      : `of transaction ${transaction}, though it belongs to none`;
    refuse(offset + 8, "bad-value", `${name} ${what}`);
  }
  const lengthBytes = view.getUint32(16);
  if (lengthBytes < bounds.least || lengthBytes > bounds.most) {
    const { least, most } = bounds;
    const taken = least === most ? `${most}` : `${least} to ${most}`;
    refuse(offset + 16, "bad-length", `${name} of ${lengthBytes} bytes; taken are ${taken}`);
  }
  return { command, flags, sequence, transaction, lengthBytes };
}

/** How TLS begins: a record of its handshake, version 3.x. RFC 8446, section 5.1. */
const TLS_HANDSHAKE = 0x1603;

function checkMagic(bytes: Uint8Array, at: number, end: number, offset: number): void {
  const magic = bytes[at] << 8 | bytes[at + 1];
  if (magic === FRAME_MAGIC) return;
  if (magic === TLS_HANDSHAKE) {
    const hint = "give both ends the same --key or --tls-dir";
    refuse(offset, "bad-magic", "the peer speaks TLS, and this end does not", hint);
  }
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
