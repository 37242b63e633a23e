import { TransportError } from "../../errors.ts";
import type { Done } from "../../replica/events/done.ts";
import type { BlockBackend, StatusDone, ZeroFlags } from "../image/block_backend.ts";
import type { ImageFile } from "../image/image_file.ts";
import { ERRNO } from "../system/linux.ts";

/**
 * A secondary's disk as a back end of the NBD server. It cannot be written before the VM is active
 * here. When the VM is protected again, its requests go to a {@link PrimaryDiskBackend} instead,
 * while its clients stay connected.
 */
export class SecondaryDiskBackend implements BlockBackend {
  readonly readOnly = false;
  isOpen = false;
  #backend: BlockBackend;

  constructor(readonly image: ImageFile) {
    this.#backend = image;
  }

  /**
   * Sends requests to this back end from now on. It must have the same content as the one before.
   */
  become(backend: BlockBackend): void {
    this.#backend = backend;
  }

  get name(): string {
    return this.image.name;
  }
  get sizeBytes(): number {
    return this.image.sizeBytes;
  }
  read(into: Uint8Array<ArrayBuffer>, offset: number, done: Done): void {
    this.#backend.read(into, offset, done);
  }
  write(data: Uint8Array, offset: number, fua: boolean, done: Done): void {
    if (this.#isShut(done)) return;
    this.#backend.write(data, offset, fua, done);
  }
  flush(done: Done): void {
    if (this.isOpen) this.#backend.flush(done);
    else done();
  }
  trim(offset: number, lengthBytes: number, fua: boolean, done: Done): void {
    if (this.#isShut(done)) return;
    this.#backend.trim(offset, lengthBytes, fua, done);
  }
  zero(offset: number, lengthBytes: number, options: ZeroFlags, done: Done): void {
    if (this.#isShut(done)) return;
    this.#backend.zero(offset, lengthBytes, options, done);
  }
  status(offset: number, lengthBytes: number, mostExtents: number, done: StatusDone): void {
    this.#backend.status(offset, lengthBytes, mostExtents, done);
  }
  prefetch(offset: number, lengthBytes: number): void {
    this.#backend.prefetch?.(offset, lengthBytes);
  }
  ready(): boolean {
    return this.#backend.ready?.() ?? true;
  }

  /** Refuses a change while the VM is not active. @returns Whether it was refused. */
  #isShut(done: Done): boolean {
    if (this.isOpen) return false;
    done(
      new TransportError(this.name, "write", "the VM is not active on this host", {
        party: "disk",
        cause: ERRNO.EPERM,
      }),
    );
    return true;
  }
}
