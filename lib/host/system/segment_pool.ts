/** A buffer that QEMU's stream is read into and sent from. */
export interface Segment {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The first byte that has not been parsed. */
  start: number;
  /** One past the last byte read. */
  end: number;
  /**
   * When so many bytes of output are written, nothing of this segment waits to be written any more.
   */
  pinnedUntil: number;
}

const SEGMENT_BYTES = 1 << 20;
/** How many unused segments are kept when a slow peer has caught up. */
const KEPT_SEGMENTS = 4;
/** A read shorter than this is not worth its system call. */
const MIN_ROOM_BYTES = 256 * 1024;

/**
 * Hands out segments for reading, and reuses each once everything sent from it was written.
 *
 * Unparsed bytes move to the front of the next segment; they are less than a record, and the
 * longest record (a list of RAM blocks) fits several times.
 */
export class SegmentPool {
  #all: Segment[] = [makeSegment()];
  current: Segment = this.#all[0];
  #holding = false;

  /** The number of segments, for tests. */
  get size(): number {
    return this.#all.length;
  }

  /** Notes that output up to this byte count may refer to the current segment, held or not. */
  pin(queued: number): void {
    this.current.pinnedUntil = Math.max(this.current.pinnedUntil, queued);
  }

  /** Notes that the current segment's bytes must stay until {@link unhold}. */
  hold(): void {
    this.current.pinnedUntil = Infinity;
    this.#holding = true;
  }

  /** Notes that what was held is needed until this byte of output is written, and no longer. */
  unhold(queued: number): void {
    if (!this.#holding) return;
    this.#holding = false;
    for (const segment of this.#all) {
      if (segment.pinnedUntil === Infinity) segment.pinnedUntil = queued;
    }
  }

  /**
   * A segment with room behind `end`, whose unparsed bytes stand at `start`.
   *
   * @param written Bytes of output written so far.
   * @param idle Whether all output is written, so that no segment is pinned.
   */
  writable(written: number, idle: boolean): Segment {
    const segment = this.current;
    if (idle && !this.#holding && this.#all.length > KEPT_SEGMENTS) this.#shrink();
    const free = (idle && segment.pinnedUntil !== Infinity) || segment.pinnedUntil <= written;
    if (segment.start === segment.end && free) segment.start = segment.end = 0;
    if (SEGMENT_BYTES - segment.end >= MIN_ROOM_BYTES) return segment;
    if (free) {
      segment.bytes.copyWithin(0, segment.start, segment.end);
      segment.end -= segment.start;
      segment.start = 0;
      return segment;
    }
    let next = this.#all.find((other) => other !== segment && other.pinnedUntil <= written);
    if (next === undefined) this.#all.push(next = makeSegment());
    next.bytes.set(segment.bytes.subarray(segment.start, segment.end));
    next.end = segment.end - segment.start;
    next.start = 0;
    return this.current = next;
  }

  /** Frees the extra segments that a slow peer has made necessary, once all of them are written. */
  #shrink(): void {
    const others = this.#all.filter((segment) => segment !== this.current);
    this.#all = [this.current, ...others.slice(0, KEPT_SEGMENTS - 1)];
  }
}

function makeSegment(): Segment {
  return { bytes: new Uint8Array(SEGMENT_BYTES), start: 0, end: 0, pinnedUntil: 0 };
}
