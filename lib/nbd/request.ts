import type { Negotiated } from "./export_info.ts";
import {
  MAX_PAYLOAD_BYTES,
  NBD_CMD,
  NBD_CMD_FLAG,
  NBD_ERROR,
  NBD_REQUEST_MAGIC,
  type NbdError,
  readU16,
  readU32,
  readU64,
  refuse,
} from "./wire.ts";

/** A request of the client; also the handle by which it is answered, once. */
export interface NbdRequest {
  /** NBD_CMD. */
  readonly command: number;
  /** NBD_CMD_FLAG. */
  readonly flags: number;
  /** The client's name for the request, as two halves of a 64-bit number. */
  readonly cookieHigh: number;
  readonly cookieLow: number;
  /** The offset in the export, in bytes; `Infinity` if it is 2^53 or more. */
  readonly offset: number;
  readonly length: number;
}

/** Why a request is refused before it is carried out. */
export interface RequestFault {
  readonly error: NbdError;
  readonly message: string;
}

/**
 * Decodes a request's header: `u32 magic, u16 flags, u16 type, u64 cookie, u64 offset, u32 length`.
 * All 28 bytes must be there.
 *
 * @param streamOffset Of `at` in the connection.
 * @throws {WireError} `bad-magic`: nothing after it can be understood.
 */
export function decodeRequest(bytes: Uint8Array, at: number, streamOffset: number): NbdRequest {
  const magic = readU32(bytes, at);
  if (magic !== NBD_REQUEST_MAGIC) {
    refuse(streamOffset, "bad-magic", `a request begins with 0x${magic.toString(16)}`);
  }
  return {
    command: readU16(bytes, at + 6),
    flags: readU16(bytes, at + 4),
    cookieHigh: readU32(bytes, at + 8),
    cookieLow: readU32(bytes, at + 12),
    offset: readU64(bytes, at + 16),
    length: readU32(bytes, at + 24),
  };
}

/** Flags that go with each command. FUA goes with all: clients are known to set it anywhere. */
function allowedFlags(command: number, structured: boolean): number {
  switch (command) {
    case NBD_CMD.READ:
      return NBD_CMD_FLAG.FUA | (structured ? NBD_CMD_FLAG.DF : 0);
    case NBD_CMD.WRITE_ZEROES:
      return NBD_CMD_FLAG.FUA | NBD_CMD_FLAG.NO_HOLE | NBD_CMD_FLAG.FAST_ZERO;
    case NBD_CMD.BLOCK_STATUS:
      return NBD_CMD_FLAG.FUA | NBD_CMD_FLAG.REQ_ONE;
    default:
      return NBD_CMD_FLAG.FUA;
  }
}

function fault(error: NbdError, message: string): RequestFault {
  return { error, message };
}

/**
 * Judges a whole request before anything is done.
 *
 * @returns The error for the client; `undefined` if the request can be served.
 */
export function judgeRequest(
  { command, flags, offset, length }: NbdRequest,
  { export: info, structured, allocation }: Negotiated,
): RequestFault | undefined {
  if (command > NBD_CMD.BLOCK_STATUS) {
    return fault(NBD_ERROR.EINVAL, `command ${command} is not known here`);
  }
  if ((flags & ~allowedFlags(command, structured)) !== 0) {
    return fault(NBD_ERROR.EINVAL, `flags 0x${flags.toString(16)} do not go with the command`);
  }
  if (command === NBD_CMD.FLUSH) {
    return offset === 0 && length === 0
      ? undefined
      : fault(NBD_ERROR.EINVAL, "a flush takes no offset and no length");
  }
  const writes = command === NBD_CMD.WRITE || command === NBD_CMD.WRITE_ZEROES;
  if (info.readOnly && (writes || command === NBD_CMD.TRIM)) {
    return fault(NBD_ERROR.EPERM, "the export is read-only");
  }
  if (command === NBD_CMD.BLOCK_STATUS && !allocation) {
    return fault(NBD_ERROR.EINVAL, "no metadata context was selected");
  }
  if (length === 0) return fault(NBD_ERROR.EINVAL, "the length is 0");
  if (offset + length > info.sizeBytes) {
    return fault(
      writes ? NBD_ERROR.ENOSPC : NBD_ERROR.EINVAL,
      `${length} bytes at ${offset} reach beyond the export's ${info.sizeBytes} bytes`,
    );
  }
  const block = info.minimumBlockBytes ?? 1;
  if (offset % block !== 0 || length % block !== 0) {
    return fault(NBD_ERROR.EINVAL, `offset and length must be multiples of ${block}`);
  }
  if ((command === NBD_CMD.READ || command === NBD_CMD.WRITE) && length > MAX_PAYLOAD_BYTES) {
    return fault(NBD_ERROR.EINVAL, `${length} bytes in one request, of ${MAX_PAYLOAD_BYTES}`);
  }
  return undefined;
}
