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

/** Bytes held of one disk, above which kemari reacts. */
export const HELD_LIMITS = {
  /** A synchronization is asked for, whatever `--sync-on` says. */
  sync: 32 * 2 ** 20,
  /** The guest's requests are slowed down. */
  throttle: 128 * 2 ** 20,
  /** The secondary is given up: it takes the writes more slowly than the guest makes them. */
  giveUp: 512 * 2 ** 20,
} as const;

/** How long to wait before an image that has refused writes is tried again. */
const RETRY_MS = 1000;

/** One disk of the protected VM: its image, its server, and its held writes. */
export class PrimaryDisk {
  readonly tap: PrimaryDiskTap;
  readonly resync: DiskResync;
  /** The back end for the guest's requests. */
  readonly backend: PrimaryDiskBackend;
  readonly #throttle: WriteThrottle;
  #server: NbdServer | undefined;
  #left = 0;
  /**
   * Counts the sessions, and the times between them: an answer of the image to an earlier one is
   * ignored.
   */
  #session = 0;
  #isGivenUp = false;
  /** A shared image has been written to since it was flushed last. */
  #isDirty = false;
  #isFlushing = false;
  /** The last transaction whose writes the image has, perhaps not yet on stable storage. */
  #written = 0;
  #stuck: string | undefined;
  #waits = false;
  #cancelRetry: () => void = () => {};

  /** The image has the writes of one more transaction for good: {@link left} has moved. */
  onReleased: () => void = () => {};

  /** @param image Closed by this object. */
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

  /** Sets the disk's server, which is closed with the disk. */
  serve(server: NbdServer): void {
    this.#server = server;
  }

  /** The disk's image, to be marked. */
  get marked(): MarkedDisk {
    return { name: this.tap.name, path: this.image.name, mode: this.tap.mode };
  }
  get isUsed(): boolean {
    return (this.#server?.connections ?? 0) > 0;
  }
  /** Whether the image does not have all that the guest has written. */
  get isWriting(): boolean {
    return this.tap.unreleasedWrites > 0 || this.image.waiting > 0;
  }
  /** Whether released writes are on their way to the image. */
  get isReleasing(): boolean {
    return this.tap.isWriting || this.#isFlushing;
  }
  /** The last transaction whose writes the image has; a shared image has them on stable storage. */
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

  /** A session with a secondary begins. */
  begin(lastTransaction: number): void {
    this.#session++;
    this.#isGivenUp = false;
    this.#left = this.#written = lastTransaction;
    // Writes that the image has refused travel with the first transaction, and are written after
    // it.
    this.#cancelRetry();
    this.tap.start();
    if (this.tap.mode === "replicated") this.resync.reset();
  }

  /** QEMU is about to stop the VM, and waits for all its disk requests. */
  stopping(): void {
    this.#throttle.stopping();
    if (this.#waits) this.#server?.resume();
  }

  /** The VM has stopped, or runs again. */
  stopped(): void {
    this.#throttle.stopped();
  }

  /**
   * The transaction is acknowledged: its writes go to the image. If the image refuses, that is
   * logged and retried.
   */
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
   * The image has a transaction's writes. The secondary is about to forget them: if the disk is
   * shared, the writes must be on stable storage first, to survive this host.
   */
  #letGo(transaction: number, hasWritten = false): void {
    this.#written = Math.max(this.#written, transaction);
    // A flush that is under way may have begun before these writes.
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

  /** Flushes what the guest was told is durable, now that there is no secondary that has it. */
  #makeGood(): void {
    if (this.#isGivenUp || !this.backend.owesFlush) return;
    this.backend.makeGood((error) => {
      if (error !== undefined) this.#lostFlush(error);
    });
  }

  #lostFlush(error: Error): void {
    if (!this.backend.fail(error)) return;
    log.error(
      "disk {name}: writes that the guest takes for durable may not be: {reason}; its next flush " +
        "fails",
      { name: this.tap.name, reason: error.message },
    );
  }

  /** The VM is the secondary's: nothing is written any more, not even writes that were held. */
  giveUp(): void {
    this.#session++;
    this.#isGivenUp = true;
    this.#cancelRetry();
    this.image.giveUpWrites();
  }

  /** @param untilMs Until when, on performance.now(), the image may take what is on its way. */
  close(untilMs: number): void {
    this.#server?.close();
    this.#makeGood();
    this.image.finish(untilMs);
    this.#session++;
    this.#cancelRetry();
    const stuck = this.#stuck ??
      (this.tap.isWriting ? "the image's storage does not answer" : undefined);
    if (stuck !== undefined && this.tap.unreleasedWrites > 0) {
      log.error("disk {name}: {count} writes of the guest were never stored: {stuck}", {
        name: this.tap.name,
        count: this.tap.unreleasedWrites,
        stuck,
      });
    }
    if (!this.#isGivenUp && this.backend.owesFlush && this.image.waiting > 0) {
      log.error(
        "disk {name}: writes that the guest takes for durable may not be: the image's storage " +
          "does not answer",
        { name: this.tap.name },
      );
    }
    this.image.close();
  }

  /**
   * Gives writes to the image, which takes them at once or later.
   *
   * @param again What to do a while after the image has refused; by default to write everything
   *   that is not written.
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
        log.error("disk {name}: {message}; {count} writes are kept in memory and retried", {
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

  /** Requests wait: has the server look again at the time given. */
  #wait(untilMs: number): void {
    if (this.#waits) return;
    this.#waits = true;
    this.reactor.after(Math.max(0, untilMs - performance.now()), () => {
      this.#waits = false;
      this.#server?.resume();
    });
  }
}
