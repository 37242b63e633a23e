import type { DigestedDisk } from "./disk_digest.ts";
import type { Done } from "./done.ts";
import type { DiskMode } from "./tap_events.ts";

/**
 * The secondary's own copy of a disk. Calls are done at once or later, in order; see `DiskStore`.
 * Writes are not lost.
 */
export interface DiskCopy extends DigestedDisk {
  write(offset: number, data: Uint8Array, done: Done): void;
  zero(offset: number, lengthBytes: number, done: Done): void;
}

/** A disk on the secondary's command line. */
export interface SecondaryDiskConfig {
  readonly mode: DiskMode;
  /** The size of the copy, or of the shared image. */
  readonly sizeBytes: number;
  /** The copy to keep; the shared image is not touched before activation. */
  readonly copy?: DiskCopy;
}
