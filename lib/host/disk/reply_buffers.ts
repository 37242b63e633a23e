const SMALLEST_BITS = 12;

/**
 * Buffers for data on its way from a disk to a client, kept for reuse: allocating memory costs
 * about as much as the read itself.
 */
export class ReplyBuffers {
  /** The free buffers, by the power of two that is their size. */
  readonly #free: Uint8Array<ArrayBuffer>[][] = [];
  #keptBytes = 0;

  /** @param mostKeptBytes Bytes of free buffers to keep at the most. */
  constructor(readonly mostKeptBytes: number) {}

  /** A buffer of at least so many bytes, with any content. */
  take(lengthBytes: number): Uint8Array<ArrayBuffer> {
    const bits = Math.max(SMALLEST_BITS, 32 - Math.clz32(lengthBytes - 1));
    const buffer = this.#free[bits]?.pop();
    if (buffer === undefined) return new Uint8Array(2 ** bits);
    this.#keptBytes -= buffer.length;
    return buffer;
  }

  /** Takes back a whole buffer that nobody reads any more. */
  giveBack(buffer: Uint8Array<ArrayBuffer>): void {
    if (this.#keptBytes + buffer.length > this.mostKeptBytes) return;
    this.#keptBytes += buffer.length;
    (this.#free[31 - Math.clz32(buffer.length)] ??= []).push(buffer);
  }
}
