import type { PrimaryDiskTap } from "../../replica/events/primary_disk_tap.ts";
import type { Done } from "../../replica/events/done.ts";
import type { WriteThrottle } from "../../replica/events/write_throttle.ts";
import type { BlockBackend, StatusDone, ZeroFlags } from "../image/block_backend.ts";

/**
 * A tapped disk as the NBD server wants it.
 *
 * While the guest's output is held, flushes and FUA are answered on credit, without waiting for stable
 * storage: what the guest has been told is durable is so because the secondary has it before the guest
 * can say so to anybody. When there is no secondary any more, that is owed: {@link makeGood}.
 */
export class PrimaryDiskBackend implements BlockBackend {
  readonly readOnly = false;

  /** Told when requests have to wait, and when to ask again, on performance.now(). */
  onBlocked: (untilMs: number) => void = () => {};

  /** Flushes answered on credit, and how many of them the image has made good since. */
  #credits = 0;
  #madeGood = 0;
  #failure: Error | undefined;

  constructor(
    readonly name: string,
    readonly tap: PrimaryDiskTap,
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

  zero(offset: number, lengthBytes: number, { fua }: ZeroFlags, done: Done): void {
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
