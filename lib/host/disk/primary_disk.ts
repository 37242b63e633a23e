import { getLogger } from "@logtape/logtape";
import { DiskResync } from "../../replica/events/disk_resync.ts";
import type { DiskStatus } from "../../control/tap_status.ts";
import { PrimaryDiskTap } from "../../replica/events/primary_disk_tap.ts";
import type { Done } from "../../replica/events/done.ts";
import { WriteThrottle } from "../../replica/events/write_throttle.ts";
import type { DiskTapAddress } from "./disk_tap_address.ts";
import type { MarkedDisk } from "../image/image_marks.ts";
import type { ImageFile } from "../image/image_file.ts";
import type { NbdServer } from "./nbd_server.ts";
import type { Reactor } from "../system/reactor.ts";
import { imageStore } from "./image_store.ts";
import { PrimaryDiskBackend } from "./primary_disk_backend.ts";

const log = getLogger(["kemari", "tap"]);

/** Bytes held of one disk, above which something is done about it. */
export const HELD_LIMITS = {
  /** A synchronization is asked for, whatever `--sync-on` says. */
  sync: 32 * 2 ** 20,
  /** The guest's requests are slowed down. */
  throttle: 128 * 2 ** 20,
  /** The secondary is given up: it takes less than the guest writes. */
  giveUp: 512 * 2 ** 20,
} as const;

/** How often an image that has refused writes is tried again. */
const RETRY_MS = 1000;

/** One disk of the protected VM: its image, who serves it, and what is held of it. */
export class PrimaryDisk {
  readonly tap: PrimaryDiskTap;
  readonly resync: DiskResync;
  /** What the guest's requests are served from. */
  readonly backend: PrimaryDiskBackend;
  readonly #throttle: WriteThrottle;
  #server: NbdServer | undefined;
  #left = 0;
  /** Counts what begins and ends: what the image answers to an earlier one is no news. */
  #session = 0;
  #isGivenUp = false;
  /** A shared image has been written to since it was flushed last. */
  #isDirty = false;
  #isFlushing = false;
  /** The last transaction whose writes the image has been given, but may not have on stable storage. */
  #written = 0;
  #stuck: string | undefined;
  #waits = false;
  #cancelRetry: () => void = () => {};

  /** The image has the writes of one more transaction for good: {@link left} has moved. */
  onReleased: () => void = () => {};

  /** @param image This object's to close from now on. */
  constructor(
    address: DiskTapAddress,
    readonly image: ImageFile,
    private readonly reactor: Reactor,
    limitBytes: number = HELD_LIMITS.throttle,
  ) {
    const store = imageStore(image);
    this.tap = new PrimaryDiskTap(address.name, address.mode, store);
    this.resync = new DiskResync(this.tap, store);
    this.#throttle = new WriteThrottle(limitBytes);
    this.backend = new PrimaryDiskBackend(address.path, this.tap, image, this.#throttle);
    this.backend.onBlocked = (untilMs) => this.#wait(untilMs);
    image.onRoom = () => this.#server?.resume();
  }

  /** Who serves it: to be closed with it. */
  serve(server: NbdServer): void {
    this.#server = server;
  }

  /** Where its image is. */
  get marked(): MarkedDisk {
    return { name: this.tap.name, path: this.image.name, mode: this.tap.mode };
  }
  get isUsed(): boolean {
    return (this.#server?.connections ?? 0) > 0;
  }
  /** Whether the image lacks something that the guest has written. */
  get isWriting(): boolean {
    return this.tap.unreleasedWrites > 0 || this.image.waiting > 0;
  }
  /** Whether what was let go is on its way to the image. */
  get isReleasing(): boolean {
    return this.tap.isWriting || this.#isFlushing;
  }
  /** The last transaction whose writes the image has: a shared one on stable storage. */
  get left(): number {
    return this.#left;
  }

  /** @param isCopied Whether the secondary's copy is known to be in step. */
  status(isCopied: boolean): DiskStatus {
    const { tap, resync, image } = this;
    return {
      name: tap.name,
      mode: tap.mode,
      sizeBytes: image.sizeBytes,
      copied: isCopied ? 1 : resync.progress.doneBytes / Math.max(1, image.sizeBytes),
      resync: resync.progress,
      heldBytes: tap.heldBytes,
      unreleasedWrites: tap.unreleasedWrites,
      limitBytes: this.#throttle.limitBytes,
      throttled: this.#throttle.waits,
      throttledMs: this.#throttle.waitedMs,
      stuck: this.#stuck ?? null,
      waiting: image.waiting,
      stalledMs: image.stalledMs,
    };
  }

  /** A secondary is there. */
  begin(lastTransaction: number): void {
    this.#session++;
    this.#isGivenUp = false;
    this.#left = this.#written = lastTransaction;
    // What the image has refused travels with the first transaction, and is written after it.
    this.#cancelRetry();
    this.tap.start();
    if (this.tap.mode === "replicated") this.resync.reset();
  }

  /** The VM is about to be stopped, which waits for every request. */
  stopping(): void {
    this.#throttle.stopping();
    if (this.#waits) this.#server?.resume();
  }

  /** It stands still, or runs. */
  stopped(): void {
    this.#throttle.stopped();
  }

  /** The transaction is acknowledged. An image that refuses is told of, and tried again. */
  release(transaction: number): void {
    const session = this.#session;
    const mayWrite = this.tap.unreleasedWrites > 0;
    this.#write((done) =>
      this.tap.release(transaction, (error) => {
        if (error === undefined && session === this.#session) this.#letGo(transaction, mayWrite);
        done(error);
      }), () => this.release(transaction));
  }

  /**
   * The image has been given a transaction's writes. The secondary is about to forget them: where it
   * has no copy of its own, they must outlive this host first.
   */
  #letGo(transaction: number, hasWritten = false): void {
    this.#written = Math.max(this.#written, transaction);
    // A flush that is on its way may have begun before it was written.
    if (hasWritten) this.#isDirty = true;
    if (this.#isFlushing || this.#isGivenUp || this.#written <= this.#left) return;
    if (!this.#isDirty) {
      this.#left = this.#written;
      return this.onReleased();
    }
    const session = this.#session;
    const written = this.#written;
    this.#isDirty = false;
    this.#isFlushing = true;
    this.image.flush((error) => {
      this.#isFlushing = false;
      if (error !== undefined) this.#lostFlush(error);
      if (session === this.#session) {
        this.#left = written;
        this.onReleased();
      }
      this.#letGo(this.#written);
    });
  }

  /** The secondary is lost, and the VM goes on. */
  passThrough(): void {
    this.#session++;
    this.#isGivenUp = false;
    this.#throttle.stopped();
    this.#write((done) => this.tap.passThrough(done));
    this.#server?.resume();
  }

  /** What the guest was told is durable has to be so, now that nobody else has it. */
  #makeGood(): void {
    if (this.#isGivenUp || !this.backend.owesFlush) return;
    this.backend.makeGood((error) => {
      if (error !== undefined) this.#lostFlush(error);
    });
  }

  #lostFlush(error: Error): void {
    if (!this.backend.fail(error)) return;
    log.error(
      "disk {name}: what the guest was told is durable may not be: {reason}; its next flush fails",
      { name: this.tap.name, reason: error.message },
    );
  }

  /** The VM is another's: nothing is written any more, also of what was to be. */
  giveUp(): void {
    this.#session++;
    this.#isGivenUp = true;
    this.#cancelRetry();
    this.image.giveUpWrites();
  }

  /** @param untilMs How long the image has, on performance.now(), to take what is on its way. */
  close(untilMs: number): void {
    this.#server?.close();
    this.#makeGood();
    this.image.finish(untilMs);
    this.#session++;
    this.#cancelRetry();
    const stuck = this.#stuck ??
      (this.tap.isWriting ? "the image's storage does not answer" : undefined);
    if (stuck !== undefined && this.tap.unreleasedWrites > 0) {
      log.error("disk {name}: {count} writes of the guest's were never stored: {stuck}", {
        name: this.tap.name,
        count: this.tap.unreleasedWrites,
        stuck,
      });
    }
    if (!this.#isGivenUp && this.backend.owesFlush && this.image.waiting > 0) {
      log.error(
        "disk {name}: what the guest was told is durable may not be: the image's storage does not answer",
        { name: this.tap.name },
      );
    }
    this.image.close();
  }

  /**
   * Lets the image have writes, which is done at once or later.
   *
   * @param again What to do a while after it has refused: by default to try all that is not written.
   */
  #write(
    act: (done: Done) => void,
    again = () => this.#write((done) => this.tap.retry(done)),
  ): void {
    const { name } = this.tap;
    const session = this.#session;
    this.#cancelRetry();
    act((error) => {
      if (session !== this.#session) return;
      if (error === undefined) {
        this.#tookWrites();
        if (!this.tap.isFlushedOnCredit) this.#makeGood();
        return;
      }
      const { message } = error;
      if (this.#stuck !== message) {
        log.error("disk {name}: {message}; {count} writes are kept in memory, and tried again", {
          name,
          message,
          count: this.tap.unreleasedWrites,
        });
      }
      this.#stuck = message;
      this.#cancelRetry();
      this.#cancelRetry = this.reactor.after(RETRY_MS, again);
    });
  }

  #tookWrites(): void {
    if (this.#stuck === undefined) return;
    this.#stuck = undefined;
    log.info("disk {name}: the image takes writes again", { name: this.tap.name });
  }

  /** Requests wait: looks again when their time has come. */
  #wait(untilMs: number): void {
    if (this.#waits) return;
    this.#waits = true;
    this.reactor.after(Math.max(0, untilMs - performance.now()), () => {
      this.#waits = false;
      this.#server?.resume();
    });
  }
}
