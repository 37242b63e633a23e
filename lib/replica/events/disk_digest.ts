/**
 * DISK_QUERY and DISK_DIGEST: digests of the chunks of a disk's copy.
 *
 * Chunks are equally long, from the disk's front on; the last one may be shorter.
 */
import { Buffer } from "node:buffer";
import { WireError } from "../../errors.ts";
import { DIGEST_BYTES, MAX_CONTROL_BYTES, MAX_TAP_NAME_BYTES } from "../../txn/wire.ts";
import type { Done } from "./done.ts";
import type { PageDigest } from "../pages/page_digest.ts";
import { decodeTapName } from "./tap_events.ts";

/** A disk that can be digested. Calls are done at once or later, in order; see `DiskStore`. */
export interface DigestedDisk {
  readonly sizeBytes: number;
  read(into: Uint8Array<ArrayBuffer>, offset: number, done: Done): void;
  /**
   * Tells how many bytes, from `offset` on, are known to be zeros without reading them; 0 if none.
   */
  zeroBytes(
    offset: number,
    lengthBytes: number,
    told: (zeroBytes: number, error?: Error) => void,
  ): void;
}

/** An operation to wait for: it goes on by itself, and calls back when it is done. */
export type Waits = (resume: () => void) => void;

/** Part of an answer to a query; `undefined` if there was only reading so far. */
export type DigestPart = { readonly payload: Uint8Array; readonly last: boolean } | undefined;

/** The chunks whose digests the sender wants. */
export interface DiskQuery {
  readonly tap: string;
  /** The halves of the digests' seed. */
  readonly seedLow: number;
  readonly seedHigh: number;
  readonly chunkBytes: number;
  /** The offset of the first chunk. */
  readonly offset: number;
  /** The length of the range, which ends with a chunk. */
  readonly lengthBytes: number;
}

/** Part of an answer: zeros from `offset` on, then the chunks whose digests these are. */
export interface DiskDigestRun {
  readonly offset: number;
  readonly zeroBytes: number;
  /** 16 bytes for each chunk. */
  readonly digests: Uint8Array;
}

/** The least and the most bytes of a chunk, which has a power of two. */
const CHUNK_BYTES = { least: 4096, most: 1 << 20 } as const;

const QUERY_FIXED_BYTES = 29;
const RUN_FIXED_BYTES = 16;
const MAX_RUN_CHUNKS = Math.floor((MAX_CONTROL_BYTES - RUN_FIXED_BYTES) / DIGEST_BYTES);

/**
 * Encodes a DISK_QUERY payload: `u32 low half of a seed, u32 high half, u32 bytes of a chunk,
 * u64 offset, u64 length, u8 n, n bytes tap name`.
 */
export function encodeDiskQuery(query: DiskQuery): Uint8Array {
  const name = new TextEncoder().encode(query.tap);
  const bytes = new Uint8Array(QUERY_FIXED_BYTES + name.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, query.seedLow);
  view.setUint32(4, query.seedHigh);
  view.setUint32(8, query.chunkBytes);
  view.setBigUint64(12, BigInt(query.offset));
  view.setBigUint64(20, BigInt(query.lengthBytes));
  bytes[28] = name.length;
  bytes.set(name, QUERY_FIXED_BYTES);
  return bytes;
}

/**
 * Decodes a DISK_QUERY payload. The caller checks whether there is such a disk, of that size.
 *
 * @param offset Of the payload in the connection, for errors.
 * @throws {WireError}
 */
export function decodeDiskQuery(payload: Uint8Array, offset: number): DiskQuery {
  const fail = (what: string): never => {
    throw new WireError("transaction", offset, "bad-value", `a DISK_QUERY ${what}`);
  };
  const nameBytes = payload[28] ?? 0;
  if (
    payload.length < QUERY_FIXED_BYTES || nameBytes === 0 || nameBytes > MAX_TAP_NAME_BYTES ||
    payload.length !== QUERY_FIXED_BYTES + nameBytes
  ) return fail(`of ${payload.length} bytes`);
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const chunkBytes = view.getUint32(8);
  if (
    chunkBytes < CHUNK_BYTES.least || chunkBytes > CHUNK_BYTES.most ||
    (chunkBytes & (chunkBytes - 1)) !== 0
  ) return fail(`for chunks of ${chunkBytes} bytes`);
  const start = view.getBigUint64(12);
  const length = view.getBigUint64(20);
  if (start + length > BigInt(Number.MAX_SAFE_INTEGER)) return fail("beyond 2^53");
  if (length === 0n || start % BigInt(chunkBytes) !== 0n) {
    return fail(`for ${length} bytes at ${start}: that is no row of chunks`);
  }
  return {
    tap: decodeTapName(payload.subarray(QUERY_FIXED_BYTES)),
    seedLow: view.getUint32(0),
    seedHigh: view.getUint32(4),
    chunkBytes,
    offset: Number(start),
    lengthBytes: Number(length),
  };
}

/** Encodes a DISK_DIGEST payload: `u64 offset, u64 bytes of zeros, digests`. */
export function encodeDigestRun({ offset, zeroBytes, digests }: DiskDigestRun): Uint8Array {
  const bytes = new Uint8Array(RUN_FIXED_BYTES + digests.length);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(offset));
  view.setBigUint64(8, BigInt(zeroBytes));
  bytes.set(digests, RUN_FIXED_BYTES);
  return bytes;
}

/**
 * Decodes a DISK_DIGEST payload, which has to continue the answer so far.
 *
 * @param at The end of the answer so far; `end` is the end of the query's range.
 * @throws {WireError} if it does not continue the answer, goes beyond the end, or is cut inside a
 *   digest.
 */
export function decodeDigestRun(
  payload: Uint8Array,
  chunkBytes: number,
  at: number,
  end: number,
): DiskDigestRun {
  const fail = (what: string): never => {
    throw new WireError("transaction", at, "bad-value", `a DISK_DIGEST ${what}`);
  };
  const digestBytes = payload.length - RUN_FIXED_BYTES;
  if (digestBytes < 0 || digestBytes % DIGEST_BYTES !== 0) {
    return fail(`of ${payload.length} bytes`);
  }
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const offset = view.getBigUint64(0);
  const zeros = view.getBigUint64(8);
  if (offset !== BigInt(at)) return fail(`for offset ${offset}, awaited was ${at}`);
  if (BigInt(at) + zeros > BigInt(end)) return fail(`of ${zeros} zeros at ${at}, beyond ${end}`);
  const zeroBytes = Number(zeros);
  const first = at + zeroBytes;
  if (first !== end && first % chunkBytes !== 0) return fail("whose zeros end inside a chunk");
  const chunks = digestBytes / DIGEST_BYTES;
  if (chunks > Math.ceil((end - first) / chunkBytes)) return fail(`of ${chunks} chunks too many`);
  return { offset: at, zeroBytes, digests: payload.subarray(RUN_FIXED_BYTES) };
}

/** One past the last byte that a run describes. @param end The end of the query's range. */
export function endOfRun(run: DiskDigestRun, chunkBytes: number, end: number): number {
  const chunks = run.digests.length / DIGEST_BYTES;
  return Math.min(end, run.offset + run.zeroBytes + chunks * chunkBytes);
}

/** How much is read between two yields, which let heartbeats have their turn. */
const STEP_BYTES = 1 << 20;

/**
 * Answers a query, a little at a time.
 *
 * @yields Payloads for DISK_DIGEST; `undefined` if there was only reading; or an operation to wait
 *   for before going on.
 * @throws the disk's error.
 */
export function* digestDisk(
  disk: DigestedDisk,
  query: DiskQuery,
  digest: PageDigest,
): Generator<DigestPart | Waits> {
  const { chunkBytes } = query;
  const end = query.offset + query.lengthBytes;
  const chunk = new Uint8Array(chunkBytes);
  const digests = new Uint8Array(MAX_RUN_CHUNKS * DIGEST_BYTES);
  let offset = query.offset;
  let zeroBytes = 0;
  let count = 0;
  let readBytes = 0;
  let failure: Error | undefined;
  const run = () =>
    encodeDigestRun({ offset, zeroBytes, digests: digests.subarray(0, count * DIGEST_BYTES) });
  for (let at = query.offset; at < end;) {
    let zeros = 0;
    yield (resume) =>
      disk.zeroBytes(at, end - at, (zeroBytes, error) => {
        zeros = zeroBytes;
        failure = error;
        resume();
      });
    if (failure !== undefined) throw failure;
    // Only whole chunks, or the rest of the disk, are reported as zeros.
    if (zeros < end - at) zeros -= zeros % chunkBytes;
    let data: Uint8Array | undefined;
    if (zeros === 0) {
      const part = chunk.subarray(0, Math.min(chunkBytes, end - at));
      yield (resume) =>
        disk.read(part, at, (error) => {
          failure = error;
          resume();
        });
      if (failure !== undefined) throw failure;
      readBytes += part.length;
      if (isZero(part)) zeros = part.length;
      else data = part;
    }
    if (zeros > 0 && count > 0 || count === MAX_RUN_CHUNKS) {
      yield { payload: run(), last: false };
      offset = at;
      zeroBytes = count = 0;
    }
    if (data === undefined) {
      zeroBytes += zeros;
      at += zeros;
    } else {
      digests.set(digest(data), count++ * DIGEST_BYTES);
      at += data.length;
    }
    if (readBytes < STEP_BYTES) continue;
    readBytes = 0;
    yield undefined;
  }
  yield { payload: run(), last: true };
}

const ZEROS = new Uint8Array(CHUNK_BYTES.most);

/** Whether these bytes, no more than the longest chunk, are all zero. */
export function isZero(bytes: Uint8Array): boolean {
  return Buffer.compare(bytes, ZEROS.subarray(0, bytes.length)) === 0;
}
