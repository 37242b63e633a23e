import type { PrimaryDiskTap } from "../../replica/events/primary_disk_tap.ts";
import type { Done } from "../../replica/events/done.ts";
import type { WriteThrottle } from "../../replica/events/write_throttle.ts";
import type { BlockBackend, StatusDone, ZeroFlags } from "../image/block_backend.ts";

/**
 * A primary's disk as a back end of the NBD server.
 *
 * While the guest's output is held, flushes and FUA are answered on credit, without waiting for
 * stable storage: the data is durable all the same, since the secondary has it before any output of
 * the guest that depends on it leaves. When there is no secondary any more, the flush is owed:
 * {@link makeGood}.
 */
export class PrimaryDiskBackend implements BlockBackend {
  readonly readOnly = false;

  /** Called when requests have to wait, with the time to ask again, on performance.now(). */
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
    // The image calls back when it takes requests again.
    if (!(this.image.ready?.() ?? true)) return false;
    const ready = this.throttle.ready(this.tap.heldBytes, performance.now());
    if (!ready) this.onBlocked(this.throttle.blockedUntil);
    return ready;
  }

  flush(done: Done): void {
    // Data for which a flush was owed and failed is lost if the host dies: the guest has to learn
    // of that.
    if (this.#failure !== undefined) return done(this.#failure);
    if (this.tap.isFlushedOnCredit) {
      this.#credits++;
      return done();
    }
    // Writes that the image has refused are not on it, even if its flush succeeds.
    this.tap.retry((error) => error === undefined ? this.image.flush(done) : done(error));
  }

  trim(offset: number, lengthBytes: number, fua: boolean, done: Done): void {
    this.tap.zero(offset, lengthBytes, fua ? this.#flushed(done) : done);
  }

  zero(offset: number, lengthBytes: number, { fua }: ZeroFlags, done: Done): void {
    this.tap.zero(offset, lengthBytes, fua ? this.#flushed(done) : done);
  }

  /** Whether stable storage may lack something that the guest was told is durable. */
  get owesFlush(): boolean {
    return this.#credits > this.#madeGood;
  }

  /**
   * Flushes the image for the flushes answered on credit. To be called when the image has been
   * given all that was held: its thread flushes behind the requests before.
   *
   * @param done Called when the flush is done, or with the reason why not: then every later flush
   *   of the guest fails too.
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
   * The image has lost something that the guest may take for durable: the guest's flushes fail from
   * now on.
   *
   * @returns Whether this is the first such failure.
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
