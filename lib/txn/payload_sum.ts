import { crc32 } from "node:zlib";
import { WireError } from "../errors.ts";

/** Of a transaction's payload, the joined payloads of its CONTINUE and EVENT frames: what COMMIT says. */
export class PayloadSum {
  #bytes = 0;
  #checksum = 0;

  get bytes(): number {
    return this.#bytes;
  }

  begin(): void {
    this.#bytes = this.#checksum = 0;
  }

  add(piece: Uint8Array): void {
    this.#checksum = crc32(piece, this.#checksum);
    this.#bytes += piece.length;
  }

  /** COMMIT's payload: `u32 CRC-32, u64 bytes`. */
  encode(): Uint8Array {
    const payload = new Uint8Array(12);
    const view = new DataView(payload.buffer);
    view.setUint32(0, this.#checksum);
    view.setBigUint64(4, BigInt(this.#bytes));
    return payload;
  }

  /**
   * Compares it with a COMMIT's payload.
   *
   * @param offset Of the frame in the connection, for errors.
   * @throws {WireError} `bad-checksum`
   */
  check(payload: Uint8Array, transaction: number, offset: number): void {
    const view = new DataView(payload.buffer, payload.byteOffset, 12);
    const checksum = view.getUint32(0);
    const bytes = view.getBigUint64(4);
    if (checksum === this.#checksum && bytes === BigInt(this.#bytes)) return;
    throw new WireError(
      "transaction",
      offset,
      "bad-checksum",
      `transaction ${transaction} arrived damaged: ${this.#bytes} of ${bytes} bytes, ` +
        `CRC-32 ${this.#checksum.toString(16)}, not ${checksum.toString(16)}`,
    );
  }
}
