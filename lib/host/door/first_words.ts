import { decodeHello } from "../../txn/hello.ts";
import { checkPlace } from "../../txn/frame_gate.ts";
import { decodeHeader } from "../../txn/frame_header.ts";
import { HEADER_BYTES } from "../../txn/wire.ts";

/** Room for a usual HELLO. */
const USUAL_BYTES = 512;

/** A connection's first bytes, until it is known whether they are a HELLO. */
export class FirstWords {
  #bytes = new Uint8Array(0);
  #length = 0;

  /** All bytes so far: a view, valid until more comes. */
  get said(): Uint8Array<ArrayBuffer> {
    return this.#bytes.subarray(0, this.#length);
  }

  /**
   * Takes the next piece, which is copied. Other peers are detected at the first wrong byte: no
   * more than a HELLO is ever kept, except for bytes in the same piece as its end.
   *
   * @returns `hello` once all of HELLO has come and is valid.
   * @throws {WireError} for anything else; the object must not be used after that.
   */
  add(piece: Uint8Array): "more" | "hello" {
    const length = this.#length + piece.length;
    if (length > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(length, 2 * this.#bytes.length, USUAL_BYTES));
      larger.set(this.said);
      this.#bytes = larger;
    }
    this.#bytes.set(piece, this.#length);
    this.#length = length;
    return judge(this.said);
  }
}

function judge(said: Uint8Array): "more" | "hello" {
  const header = decodeHeader(said, 0, said.length, 0);
  if (header === undefined) return "more";
  checkPlace("receiver", "hello", header, 0, 0);
  const end = HEADER_BYTES + header.lengthBytes;
  if (said.length < end) return "more";
  decodeHello(said.subarray(HEADER_BYTES, end), HEADER_BYTES);
  return "hello";
}
