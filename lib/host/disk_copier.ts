import { NBD_STATE_ZERO } from "../nbd/wire.ts";
import type { DiskTap } from "../replica/disk_tap.ts";
import type { BlockBackend } from "./block_backend.ts";

const CHUNK_BYTES = 256 * 1024;
const MAX_EXTENTS = 64;

/**
 * Sends a replicated disk to the secondary for the first time, while the VM runs and writes.
 *
 * A chunk is read and recorded in one go, so it stands in the order of the guest's writes: those
 * before it are in it, those behind it travel behind it. The copy is complete with the transaction
 * that carries the last chunk.
 */
export class DiskCopier {
  #offset = 0;
  #done = false;

  constructor(private readonly tap: DiskTap, private readonly image: BlockBackend) {}

  get done(): boolean {
    return this.#done;
  }
  get copiedBytes(): number {
    return this.#offset;
  }

  /** Starts again from the front, for another secondary. */
  restart(): void {
    this.#offset = 0;
    this.#done = false;
  }

  /** Records up to so many bytes of data; holes cost nothing. @throws what the image throws. */
  step(budgetBytes: number): void {
    while (!this.#done && budgetBytes > 0) {
      const left = this.image.sizeBytes - this.#offset;
      if (left === 0) {
        this.#done = true;
        this.tap.add({ kind: "copied", tap: this.tap.name });
        return;
      }
      const [extent] = this.image.status(this.#offset, left, MAX_EXTENTS);
      if ((extent.flags & NBD_STATE_ZERO) !== 0) {
        const lengthBytes = Math.min(left, extent.lengthBytes);
        this.tap.add({ kind: "zero", tap: this.tap.name, offset: this.#offset, lengthBytes });
        this.#offset += lengthBytes;
        continue;
      }
      const lengthBytes = Math.min(left, extent.lengthBytes, CHUNK_BYTES);
      const data = new Uint8Array(lengthBytes);
      this.tap.read(data, this.#offset);
      this.tap.add({ kind: "copy", tap: this.tap.name, offset: this.#offset, data });
      this.#offset += lengthBytes;
      budgetBytes -= lengthBytes;
    }
  }
}
