import type { Extent } from "../../nbd/reply_writer.ts";
import type { Done } from "../../replica/events/done.ts";

/** How zeroes may be written. */
export interface ZeroFlags {
  /** Done only when they are on stable storage. */
  readonly fua: boolean;
  /** A hole will do. */
  readonly mayUnmap: boolean;
  /** Fail with EOPNOTSUPP rather than be as slow as a write. */
  readonly fast: boolean;
}

/** Told what is known about a range; nothing where that failed with `error`. */
export type StatusDone = (extents: readonly Extent[], error?: Error) => void;

/**
 * What stands behind an NBD export: a disk of a fixed size. Ranges have been checked by the caller.
 *
 * No call waits for storage. Each is done at once or later, and then tells its `done`, once, on the
 * caller's thread. Calls take effect in the order in which they were made: a write is seen by the
 * reads behind it, and a flush finds what came before it written. They fail with a
 * {@link TransportError} whose `cause` is the system's error number; the client is told, and the
 * export goes on.
 */
export interface BlockBackend {
  /** For messages: a path. */
  readonly name: string;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** Fills `into`, which stays in place until it is done, with what lies at `offset`. */
  read(into: Uint8Array<ArrayBuffer>, offset: number, done: Done): void;
  /** `data` stays in place, and as it is, until it is done. */
  write(data: Uint8Array, offset: number, fua: boolean, done: Done): void;
  /** Done when all that was written is on stable storage. */
  flush(done: Done): void;
  /** The range is no longer needed; what it reads as is left open. */
  trim(offset: number, lengthBytes: number, fua: boolean, done: Done): void;
  /** The range reads as zeroes from now on. */
  zero(offset: number, lengthBytes: number, options: ZeroFlags, done: Done): void;
  /**
   * What is known about a range, from its front on: at least one extent, and no more than
   * `mostExtents`; they may end before the range does.
   */
  status(offset: number, lengthBytes: number, mostExtents: number, done: StatusDone): void;
  /** The range will be read soon. */
  prefetch?(offset: number, lengthBytes: number): void;
  /**
   * Whether one more request may come now. Where it says no, requests wait in their connections
   * until `NbdServer.resume()`.
   */
  ready?(): boolean;
}
