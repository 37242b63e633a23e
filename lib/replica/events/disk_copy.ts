import type { DigestedDisk } from "./disk_digest.ts";
import type { Done } from "./done.ts";
import type { DiskMode } from "./tap_events.ts";

/**
 * The secondary's own copy of a disk. Calls are done at once or later, in order; see `DiskStore`.
 * What was written stays written.
 */
export interface DiskCopy extends DigestedDisk {
  write(offset: number, data: Uint8Array, done: Done): void;
  zero(offset: number, lengthBytes: number, done: Done): void;
}

/** A disk that the secondary was told of on its command line. */
export interface SecondaryDiskConfig {
  readonly mode: DiskMode;
  /** Of the copy, or of the shared image. */
  readonly sizeBytes: number;
  /** The copy to keep; the shared image is not touched before activation. */
  readonly copy?: DiskCopy;
}
