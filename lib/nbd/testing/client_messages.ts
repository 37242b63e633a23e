/** For tests: the client's messages, and the decoding of the server's. */
import {
  CHUNK_HEADER_BYTES,
  IHAVEOPT,
  isMagic,
  NBD_CMD,
  NBD_INFO,
  NBD_OPT,
  NBD_REP_MAGIC,
  NBD_REPLY_TYPE,
  NBD_REQUEST_MAGIC,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STRUCTURED_REPLY_MAGIC,
  OPTION_HEADER_BYTES,
  OPTION_REPLY_HEADER_BYTES,
  readU16,
  readU32,
  readU64,
  refuse,
  REQUEST_BYTES,
  SIMPLE_REPLY_BYTES,
  writeU16,
  writeU32,
  writeU64,
} from "../wire.ts";

const utf8 = new TextEncoder();

export function concatenate(...pieces: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

export function u16(value: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(2);
  writeU16(bytes, 0, value);
  return bytes;
}

export function u32(value: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(4);
  writeU32(bytes, 0, value);
  return bytes;
}

/** `u32 length, text`. */
export function encodeText(text: string): Uint8Array<ArrayBuffer> {
  const encoded = utf8.encode(text);
  return concatenate(u32(encoded.length), encoded);
}

/** @param lengthBytes The length in the header, if it is not the data's. */
export function encodeOption(
  option: number,
  data: Uint8Array = new Uint8Array(0),
  lengthBytes = data.length,
): Uint8Array<ArrayBuffer> {
  const header = new Uint8Array(OPTION_HEADER_BYTES);
  writeU32(header, 0, IHAVEOPT[0]);
  writeU32(header, 4, IHAVEOPT[1]);
  writeU32(header, 8, option);
  writeU32(header, 12, lengthBytes);
  return concatenate(header, data);
}

export function encodeInfo(
  option: typeof NBD_OPT.INFO | typeof NBD_OPT.GO,
  name: string,
  ...wanted: number[]
): Uint8Array<ArrayBuffer> {
  const data = concatenate(encodeText(name), u16(wanted.length), ...wanted.map(u16));
  return encodeOption(option, data);
}

export function encodeContexts(
  option: typeof NBD_OPT.LIST_META_CONTEXT | typeof NBD_OPT.SET_META_CONTEXT,
  name: string,
  ...queries: string[]
): Uint8Array<ArrayBuffer> {
  const data = concatenate(encodeText(name), u32(queries.length), ...queries.map(encodeText));
  return encodeOption(option, data);
}

/** The haggling of a client that wants every feature. */
export function encodeFullHandshake(name: string): Uint8Array<ArrayBuffer> {
  return concatenate(
    u32(3),
    encodeOption(NBD_OPT.STRUCTURED_REPLY),
    encodeContexts(NBD_OPT.SET_META_CONTEXT, name, "base:allocation"),
    encodeInfo(NBD_OPT.GO, name, NBD_INFO.BLOCK_SIZE),
  );
}

/** The fields of a request; fields that are left out are 0. */
export interface RequestFields {
  readonly flags?: number;
  readonly cookie?: number;
  readonly offset?: number;
  readonly length?: number;
  readonly data?: Uint8Array;
}

export function encodeRequest(
  command: number,
  { flags = 0, cookie = 0, offset = 0, length, data }: RequestFields = {},
): Uint8Array<ArrayBuffer> {
  const header = new Uint8Array(REQUEST_BYTES);
  writeU32(header, 0, NBD_REQUEST_MAGIC);
  writeU16(header, 4, flags);
  writeU16(header, 6, command);
  writeU64(header, 8, cookie);
  writeU64(header, 16, offset);
  writeU32(header, 24, length ?? data?.length ?? 0);
  return data === undefined ? header : concatenate(header, data);
}

export interface OptionReply {
  readonly option: number;
  readonly type: number;
  readonly data: Uint8Array;
}

/** Decodes replies to options; `bytes` must hold whole ones only. */
export function decodeOptionReplies(bytes: Uint8Array): OptionReply[] {
  const replies: OptionReply[] = [];
  for (let at = 0; at < bytes.length;) {
    if (!isMagic(bytes, at, NBD_REP_MAGIC)) refuse(at, "bad-magic", "no option reply");
    const length = readU32(bytes, at + 16);
    const body = at + OPTION_REPLY_HEADER_BYTES;
    if (body + length > bytes.length) refuse(at, "truncated", "a cut option reply");
    replies.push({
      option: readU32(bytes, at + 8),
      type: readU32(bytes, at + 12),
      data: bytes.slice(body, body + length),
    });
    at = body + length;
  }
  return replies;
}

/** One message of the server's during transmission. */
export type Reply =
  | { readonly kind: "simple"; readonly cookie: number; error: number; readonly data: Uint8Array }
  | {
    readonly kind: "chunk";
    readonly cookie: number;
    readonly done: boolean;
    readonly type: number;
    readonly payload: Uint8Array;
  };

/**
 * Decodes replies; `bytes` must hold whole ones only.
 *
 * @param readLength The length of the read with this cookie, which a simple reply does not have.
 */
export function decodeReplies(
  bytes: Uint8Array,
  readLength: (cookie: number) => number = () => 0,
): Reply[] {
  const replies: Reply[] = [];
  for (let at = 0; at < bytes.length;) {
    const cookie = readU64(bytes, at + 8);
    if (readU32(bytes, at) === NBD_SIMPLE_REPLY_MAGIC) {
      const error = readU32(bytes, at + 4);
      const end = at + SIMPLE_REPLY_BYTES + (error === 0 ? readLength(cookie) : 0);
      const data = bytes.slice(at + SIMPLE_REPLY_BYTES, end);
      replies.push({ kind: "simple", cookie, error, data });
      at = end;
      continue;
    }
    if (readU32(bytes, at) !== NBD_STRUCTURED_REPLY_MAGIC) refuse(at, "bad-magic", "no reply");
    const body = at + CHUNK_HEADER_BYTES;
    const end = body + readU32(bytes, at + 16);
    if (end > bytes.length) refuse(at, "truncated", "a cut chunk");
    replies.push({
      kind: "chunk",
      cookie,
      done: (readU16(bytes, at + 4) & 1) !== 0,
      type: readU16(bytes, at + 6),
      payload: bytes.slice(body, end),
    });
    at = end;
  }
  return replies;
}

/** An error's number and text, from either kind of reply; `undefined` for success. */
export function errorOf(reply: Reply): { error: number; message: string; offset?: number } | void {
  if (reply.kind === "simple") {
    return reply.error === 0 ? undefined : { error: reply.error, message: "" };
  }
  if (reply.type < NBD_REPLY_TYPE.ERROR) return undefined;
  const { payload } = reply;
  const textEnd = 6 + readU16(payload, 4);
  const found = {
    error: readU32(payload, 0),
    message: new TextDecoder().decode(payload.subarray(6, textEnd)),
  };
  return reply.type === NBD_REPLY_TYPE.ERROR_OFFSET
    ? { ...found, offset: readU64(payload, textEnd) }
    : found;
}

/** Disconnects. */
export const DISCONNECT = encodeRequest(NBD_CMD.DISC);
