import type { SenderEvent } from "./sender_config.ts";
import type { FrameHeader } from "./frame_header.ts";
import { DIGEST_LAST, MAX_DISK_QUERIES, TXN } from "./wire.ts";
import { refuse } from "./wire_fault.ts";

type PageDigests = Extract<SenderEvent, { readonly kind: "digests" }>;

/**
 * What a sender has asked its receiver for and not been told in full: digests of the replica's
 * pages, once at a time, and of disks, whose answers come in the order of the queries.
 *
 * An answer is one or more frames, the last of which says so.
 */
export class DigestQueries {
  #pagesAwaited = false;
  #disks = 0;

  /** Whether one more query of a disk may be sent: not too many wait. */
  get mayQueryDisk(): boolean {
    return this.#disks < MAX_DISK_QUERIES;
  }

  /** The pages are asked for. @returns DIGEST_QUERY's payload: `u32 seed, u32 seed`. */
  askPages(seedLow: number, seedHigh: number): Uint8Array {
    this.#pagesAwaited = true;
    const payload = new Uint8Array(8);
    const view = new DataView(payload.buffer);
    view.setUint32(0, seedLow);
    view.setUint32(4, seedHigh);
    return payload;
  }

  /** A disk is asked for; see {@link mayQueryDisk}. */
  askDisk(): void {
    this.#disks++;
  }

  /**
   * The header of a DIGEST or a DISK_DIGEST has come.
   *
   * @throws {WireError} `bad-order` if it was not asked for.
   */
  check(command: number, offset: number): void {
    if (command === TXN.DIGEST) {
      if (!this.#pagesAwaited) refuse(offset, "bad-order", "digests that were not asked for");
    } else if (this.#disks === 0) {
      refuse(offset, "bad-order", "a disk's digests that were not asked for");
    }
  }

  /** DIGEST has come. */
  pagesAnswered(header: FrameHeader, payload: Uint8Array): PageDigests {
    const last = (header.flags & DIGEST_LAST) !== 0;
    this.#pagesAwaited = !last;
    return { kind: "digests", payload: payload.slice(), last };
  }

  /** DISK_DIGEST has come. */
  diskAnswered(header: FrameHeader, payload: Uint8Array): SenderEvent {
    const last = (header.flags & DIGEST_LAST) !== 0;
    if (last) this.#disks--;
    return { kind: "disk-digests", payload: payload.slice(), last };
  }
}
