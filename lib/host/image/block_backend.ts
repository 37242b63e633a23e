import type { Extent } from "../../nbd/reply_writer.ts";
import type { Done } from "../../replica/events/done.ts";

/** How zeroes may be written. */
export interface ZeroFlags {
  /** Whether they have to be on stable storage when the call is done. */
  readonly fua: boolean;
  /** Whether a hole will do. */
  readonly mayUnmap: boolean;
  /** Whether to fail with EOPNOTSUPP rather than be as slow as a write. */
  readonly fast: boolean;
}

/** Called with what is known about a range; with no extents, and `error`, if that failed. */
export type StatusDone = (extents: readonly Extent[], error?: Error) => void;

/**
 * The disk behind an NBD export, of a fixed size. Ranges have been checked by the caller.
 *
 * No call waits for storage. Each is done at once or later, and then calls its `done`, once, on the
 * caller's thread. Calls take effect in the order in which they were made: reads see the writes
 * before them, and a flush covers them. They fail with a {@link TransportError} whose `cause` is
 * the system's error number; the client is told, and the export goes on.
 */
export interface BlockBackend {
  /** A path, for messages. */
  readonly name: string;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /**
   * Fills `into`, which must stay in place until the call is done, with the content at `offset`.
   */
  read(into: Uint8Array<ArrayBuffer>, offset: number, done: Done): void;
  /** `data` must stay in place, and as it is, until the call is done. */
  write(data: Uint8Array, offset: number, fua: boolean, done: Done): void;
  /** Is done when all that was written is on stable storage. */
  flush(done: Done): void;
  /** Marks the range as no longer needed; what it reads as is undefined. */
  trim(offset: number, lengthBytes: number, fua: boolean, done: Done): void;
  /** Makes the range read as zeroes. */
  zero(offset: number, lengthBytes: number, options: ZeroFlags, done: Done): void;
  /**
   * Tells what is known about a range, from its front on: at least one extent, and at most
   * `mostExtents`; they may end before the range does.
   */
  status(offset: number, lengthBytes: number, mostExtents: number, done: StatusDone): void;
  /** A hint that the range will be read soon. */
  prefetch?(offset: number, lengthBytes: number): void;
  /**
   * Whether one more request may come now. If not, requests wait in their connections until
   * `NbdServer.resume()`.
   */
  ready?(): boolean;
}
