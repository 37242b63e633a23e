import type { DiskCopy } from "./disk_copy.ts";
import type { TapEvent } from "./tap_events.ts";

/** A committed change to a disk's copy. */
type PendingWrite = Extract<TapEvent, { readonly kind: "write" | "copy" | "zero" }>;

/** About how many bytes a change takes beside its data. */
const ENTRY_BYTES = 128;

/**
 * The committed changes of a disk that its copy does not have yet, in order.
 *
 * ```text
 * add() ──apply()──► given to the copy ──done──► forgotten
 *   ▲                      └──failed──► it and all behind it wait for the next apply()
 *   └─────────────────────────────────────────┘
 * ```
 *
 * All changes are given to the copy at once, which makes them in order. After a change that has
 * failed, later ones may have been made: they are made again, with the same result in the end.
 */
export class PendingWrites {
  #writes: PendingWrite[] = [];
  /** The index of the oldest change; those before are done. */
  #first = 0;
  /** How many changes, from the front, the copy has been given. */
  #given = 0;
  #bytes = 0;
  #failure: Error | undefined;

  /**
   * @param settled Called when no change is under way any more: all are done, or one has failed.
   */
  constructor(
    private readonly copy: DiskCopy,
    private readonly settled: (failure: Error | undefined) => void,
  ) {}

  get count(): number {
    return this.#writes.length - this.#first;
  }
  /** Bytes of memory that the changes take. */
  get bytes(): number {
    return this.#bytes;
  }
  /** Why the changes have to be made again. */
  get failure(): Error | undefined {
    return this.#given === 0 ? this.#failure : undefined;
  }

  add(write: PendingWrite): void {
    this.#writes.push(write);
    this.#bytes += sizeOf(write);
  }

  /** Gives the copy the changes that it has not been given, and again those that have failed. */
  apply(): void {
    // Failed changes are made again only when all are settled: otherwise the order would be lost.
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
