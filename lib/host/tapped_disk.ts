import type { Extent } from "../nbd/reply_writer.ts";
import { NBD_STATE_ZERO } from "../nbd/wire.ts";
import type { DigestedDisk } from "../replica/disk_digest.ts";
import type { DiskStore, DiskTap } from "../replica/disk_tap.ts";
import type { WriteThrottle } from "../replica/write_throttle.ts";
import type { BlockBackend, ZeroOptions } from "./block_backend.ts";

/** An image as the event-tap's pure half wants it. */
export function storeOf(image: BlockBackend): DiskStore & DigestedDisk {
  return {
    sizeBytes: image.sizeBytes,
    read: (into, offset) => image.read(into, offset),
    zeroBytes: (offset, lengthBytes) => {
      if (lengthBytes === 0) return 0;
      const [extent] = image.status(offset, lengthBytes, 1);
      return (extent.flags & NBD_STATE_ZERO) !== 0 ? Math.min(lengthBytes, extent.lengthBytes) : 0;
    },
    write: (offset, data) => image.write(data, offset, false),
    zero: (offset, lengthBytes) =>
      image.zero(offset, lengthBytes, { fua: false, mayUnmap: true, fast: false }),
  };
}

/**
 * A tapped disk as the NBD server wants it.
 *
 * Flushes and FUA are answered without waiting for stable storage: what the guest has been told is
 * durable is so because the secondary has it before the guest can say so to anybody.
 */
export class TappedDisk implements BlockBackend {
  readonly readOnly = false;

  /** Told when requests have to wait, and when to ask again, on performance.now(). */
  onBlocked: (untilMs: number) => void = () => {};

  constructor(
    readonly name: string,
    readonly tap: DiskTap,
    private readonly image: BlockBackend,
    private readonly throttle: WriteThrottle,
  ) {}

  get sizeBytes(): number {
    return this.image.sizeBytes;
  }

  read(into: Uint8Array<ArrayBuffer>, offset: number): void {
    this.tap.read(into, offset);
  }

  write(data: Uint8Array, offset: number, _fua: boolean): void {
    this.tap.write(offset, data);
  }

  ready(): boolean {
    const ready = this.throttle.ready(this.tap.heldBytes, performance.now());
    if (!ready) this.onBlocked(this.throttle.blockedUntil);
    return ready;
  }

  flush(): void {
    if (this.tap.isProtected) return;
    // What the image has refused is not on it, whatever its flush says.
    this.tap.retry();
    this.image.flush();
  }

  trim(offset: number, lengthBytes: number): void {
    this.tap.zero(offset, lengthBytes);
  }

  zero(offset: number, lengthBytes: number, _options: ZeroOptions): void {
    this.tap.zero(offset, lengthBytes);
  }

  status(offset: number, lengthBytes: number, mostExtents: number): Extent[] {
    // The overlay may hold data where the image has a hole.
    if (this.tap.hasOverlay) return [{ lengthBytes, flags: 0 }];
    return this.image.status(offset, lengthBytes, mostExtents);
  }
}
