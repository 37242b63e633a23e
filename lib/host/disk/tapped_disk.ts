import { NBD_STATE_ZERO } from "../../nbd/wire.ts";
import type { DigestedDisk } from "../../replica/events/disk_digest.ts";
import type { DiskStore, DiskTap } from "../../replica/events/disk_tap.ts";
import type { Done } from "../../replica/events/done.ts";
import type { WriteThrottle } from "../../replica/events/write_throttle.ts";
import type { BlockBackend, StatusDone, ZeroOptions } from "../image/block_backend.ts";

/** An image as the event-tap's pure half wants it. */
export function storeOf(image: BlockBackend): DiskStore & DigestedDisk {
  return {
    sizeBytes: image.sizeBytes,
    read: (into, offset, done) => image.read(into, offset, done),
    zeroBytes: (offset, lengthBytes, told) => {
      if (lengthBytes === 0) return told(0);
      image.status(offset, lengthBytes, 1, ([extent], error) => {
        if (error !== undefined) return told(0, error);
        const isZero = (extent.flags & NBD_STATE_ZERO) !== 0;
        told(isZero ? Math.min(lengthBytes, extent.lengthBytes) : 0);
      });
    },
    write: (offset, data, done) => image.write(data, offset, false, done),
    zero: (offset, lengthBytes, done) =>
      image.zero(offset, lengthBytes, { fua: false, mayUnmap: true, fast: false }, done),
  };
}

/**
 * A tapped disk as the NBD server wants it.
 *
 * While the guest's output is held, flushes and FUA are answered on credit, without waiting for stable
 * storage: what the guest has been told is durable is so because the secondary has it before the guest
 * can say so to anybody. When there is no secondary any more, that is owed: {@link makeGood}.
 */
export class TappedDisk implements BlockBackend {
  readonly readOnly = false;

  /** Told when requests have to wait, and when to ask again, on performance.now(). */
  onBlocked: (untilMs: number) => void = () => {};

  /** Flushes answered on credit, and how many of them the image has made good since. */
  #credits = 0;
  #madeGood = 0;
  #failure: Error | undefined;

  constructor(
    readonly name: string,
    readonly tap: DiskTap,
    private readonly image: BlockBackend,
    private readonly throttle: WriteThrottle,
  ) {}

  get sizeBytes(): number {
    return this.image.sizeBytes;
  }

  read(into: Uint8Array<ArrayBuffer>, offset: number, done: Done): void {
    this.tap.read(into, offset, done);
  }

  write(data: Uint8Array, offset: number, fua: boolean, done: Done): void {
    this.tap.write(offset, data, fua ? this.#flushed(done) : done);
  }

  ready(): boolean {
    // The image says itself when it takes requests again.
    if (!(this.image.ready?.() ?? true)) return false;
    const ready = this.throttle.ready(this.tap.heldBytes, performance.now());
    if (!ready) this.onBlocked(this.throttle.blockedUntil);
    return ready;
  }

  flush(done: Done): void {
    // What could not be made good is lost to the guest if the host dies: it has to hear of that.
    if (this.#failure !== undefined) return done(this.#failure);
    if (this.tap.isFlushedOnCredit) {
      this.#credits++;
      return done();
    }
    // What the image has refused is not on it, whatever its flush says.
    this.tap.retry((error) => error === undefined ? this.image.flush(done) : done(error));
  }

  trim(offset: number, lengthBytes: number, fua: boolean, done: Done): void {
    this.tap.zero(offset, lengthBytes, fua ? this.#flushed(done) : done);
  }

  zero(offset: number, lengthBytes: number, { fua }: ZeroOptions, done: Done): void {
    this.tap.zero(offset, lengthBytes, fua ? this.#flushed(done) : done);
  }

  /** Whether the guest was told that something is durable which stable storage may not have. */
  get owesFlush(): boolean {
    return this.#credits > this.#madeGood;
  }

  /**
   * Has the image flushed for the credit that was given: to be called when it has all that was held.
   * Calls for it are answered on the image's own thread, behind what it was asked for before.
   *
   * @param done Told when it is done, or why not: then every later flush of the guest's fails too.
   */
  makeGood(done: Done): void {
    const credits = this.#credits;
    this.image.flush((error) => {
      if (error === undefined) this.#madeGood = Math.max(this.#madeGood, credits);
      else this.fail(error);
      done(error);
    });
  }

  /**
   * The image has lost something that the guest may take for durable: its flushes fail from now on.
   *
   * @returns Whether that is new.
   */
  fail(error: Error): boolean {
    if (this.#failure !== undefined) return false;
    this.#failure = error;
    return true;
  }

  #flushed(done: Done): Done {
    return (error) => error === undefined ? this.flush(done) : done(error);
  }

  status(offset: number, lengthBytes: number, mostExtents: number, done: StatusDone): void {
    // The overlay may hold data where the image has a hole.
    if (this.tap.hasOverlay) return done([{ lengthBytes, flags: 0 }]);
    this.image.status(offset, lengthBytes, mostExtents, done);
  }
}
