import type { Extent } from "../nbd/reply_writer.ts";

/** How zeroes may be written. */
export interface ZeroOptions {
  /** Return only when they are on stable storage. */
  readonly fua: boolean;
  /** A hole will do. */
  readonly mayUnmap: boolean;
  /** Fail with EOPNOTSUPP rather than be as slow as a write. */
  readonly fast: boolean;
}

/**
 * What stands behind an NBD export: a disk of a fixed size. Ranges have been checked by the caller.
 *
 * All calls are synchronous. They throw a {@link TransportError} whose `cause` is the system's
 * error number; the client is told, and the export goes on.
 */
export interface BlockBackend {
  /** For messages: a path. */
  readonly name: string;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** Fills `into` with what lies at `offset`. */
  read(into: Uint8Array<ArrayBuffer>, offset: number): void;
  /** `data` is the caller's: valid during the call only. */
  write(data: Uint8Array, offset: number, fua: boolean): void;
  /** Returns when all that was written is on stable storage. */
  flush(): void;
  /** The range is no longer needed; what it reads as is left open. */
  trim(offset: number, lengthBytes: number, fua: boolean): void;
  /** The range reads as zeroes from now on. */
  zero(offset: number, lengthBytes: number, options: ZeroOptions): void;
  /**
   * What is known about a range, from its front on: at least one extent, and no more than
   * `mostExtents`; they may end before the range does.
   */
  status(offset: number, lengthBytes: number, mostExtents: number): Extent[];
  /** The range will be read soon. */
  prefetch?(offset: number, lengthBytes: number): void;
  /**
   * Whether one more request may come now. Where it says no, requests wait in their connections
   * until `NbdServer.resume()`.
   */
  ready?(): boolean;
}
