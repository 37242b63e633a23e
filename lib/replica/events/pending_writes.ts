import type { DiskCopy } from "./disk_copy.ts";
import type { TapEvent } from "./tap_events.ts";

/** A committed change to a disk's copy. */
type PendingWrite = Extract<TapEvent, { readonly kind: "write" | "copy" | "zero" }>;

/** What one change takes beside its data, roughly. */
const ENTRY_BYTES = 128;

/**
 * What is committed of one disk and not in its copy yet, in order.
 *
 * ```text
 * add() ──apply()──► given to the copy ──done──► forgotten
 *   ▲                      └──failed──► it and all behind it wait for the next apply()
 *   └─────────────────────────────────────────┘
 * ```
 *
 * All of it is given to the copy at once, which does it in order. Behind one that has failed others
 * may have been done: they are done again, and the last word is the same.
 */
export class PendingWrites {
  #writes: PendingWrite[] = [];
  /** Where the oldest is; those before are done. */
  #first = 0;
  /** How many of them, from the front, the copy has been given. */
  #given = 0;
  #bytes = 0;
  #failure: Error | undefined;

  /** @param settled Told when nothing is on its way any more: all is done, or one has failed. */
  constructor(
    private readonly copy: DiskCopy,
    private readonly settled: (failure: Error | undefined) => void,
  ) {}

  get count(): number {
    return this.#writes.length - this.#first;
  }
  /** Bytes of memory that they take. */
  get bytes(): number {
    return this.#bytes;
  }
  /** Why they have to be tried again. */
  get failure(): Error | undefined {
    return this.#given === 0 ? this.#failure : undefined;
  }

  add(write: PendingWrite): void {
    this.#writes.push(write);
    this.#bytes += sizeOf(write);
  }

  /** Gives the copy what it has not been given; what has failed once more. */
  apply(): void {
    // What failed is tried again when the rest has come back, or the order is lost.
    if (this.#failure !== undefined && this.#given > 0) return;
    this.#failure = undefined;
    while (this.#given < this.count && this.#failure === undefined) {
      const write = this.#writes[this.#first + this.#given++];
      if (write.kind === "zero") this.copy.zero(write.offset, write.lengthBytes, this.#done);
      else this.copy.write(write.offset, write.data, this.#done);
    }
  }

  readonly #done = (error?: Error): void => {
    this.#given--;
    this.#failure ??= error;
    if (this.#failure === undefined) this.#forgetFirst();
    if (this.#given > 0) return;
    if (this.#failure !== undefined || this.count === 0) this.settled(this.#failure);
  };

  #forgetFirst(): void {
    this.#bytes -= sizeOf(this.#writes[this.#first++]);
    if (this.#first < 1024 && this.#first < this.#writes.length) return;
    this.#writes = this.#writes.slice(this.#first);
    this.#first = 0;
  }
}

function sizeOf(write: PendingWrite): number {
  return ENTRY_BYTES + (write.kind === "zero" ? 0 : write.data.length);
}
