/** Answers to NBD clients, made from what a disk has returned. */
import type { TransportError } from "../../errors.ts";
import type { ReadChunk } from "../../nbd/reply_writer.ts";
import { NBD_ERROR, type NbdError } from "../../nbd/wire.ts";
import { isZero } from "../../replica/events/disk_digest.ts";
import { ERRNO } from "../system/linux.ts";

/** Zeroes are looked for in runs of this many bytes. */
const RUN_BYTES = 64 * 1024;

/**
 * @returns The chunks to answer if parts of the data are zeroes; `undefined` if there are no such
 * parts.
 */
export function aroundZeroes(data: Uint8Array<ArrayBuffer>): ReadChunk[] | undefined {
  const chunks: ReadChunk[] = [];
  let zeroBytes = 0;
  let from = 0;
  for (let at = 0; at < data.length; at += RUN_BYTES) {
    const part = data.subarray(at, at + RUN_BYTES);
    if (!isZero(part)) {
      if (zeroBytes > 0) chunks.push({ zeroBytes });
      if (zeroBytes > 0) from = at;
      zeroBytes = 0;
      continue;
    }
    if (zeroBytes === 0 && at > from) chunks.push(data.subarray(from, at));
    zeroBytes += part.length;
  }
  if (zeroBytes > 0) chunks.push({ zeroBytes });
  else if (chunks.length > 0) chunks.push(data.subarray(from));
  return chunks.length > 0 ? chunks : undefined;
}

/** The protocol's error number for the system's. */
export function nbdErrorOf(error: TransportError): NbdError {
  switch (error.cause) {
    case ERRNO.ENOSPC:
    case ERRNO.EDQUOT:
    case ERRNO.EFBIG:
      return NBD_ERROR.ENOSPC;
    case ERRNO.EPERM:
    case ERRNO.EACCES:
    case ERRNO.EROFS:
      return NBD_ERROR.EPERM;
    case ERRNO.ENOMEM:
      return NBD_ERROR.ENOMEM;
    case ERRNO.EOPNOTSUPP:
      return NBD_ERROR.ENOTSUP;
    default:
      return NBD_ERROR.EIO;
  }
}
