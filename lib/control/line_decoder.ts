import { WireError } from "../errors.ts";

const LINE_BREAK = 0x0a;

/** Takes bytes in any pieces and gives whole lines of text. Bytes given to it are copied. */
export class LineDecoder {
  readonly #maxLineBytes: number;
  readonly #from: string;
  #begun: Uint8Array[] = [];
  #begunBytes = 0;
  /** The offset of the begun line's first byte, from the start of the connection. */
  #offset = 0;

  /**
   * @param maxLineBytes The longest line that is kept, its line break not counted.
   * @param from The sender of the lines, for errors.
   */
  constructor(maxLineBytes: number, from: string) {
    this.#maxLineBytes = maxLineBytes;
    this.#from = from;
  }

  /**
   * @returns The lines that end in these bytes, without their line breaks.
   * @throws {WireError} `too-large` if a line is longer than the bound; `bad-value` if one is not
   *   UTF-8. The decoder must not be used afterwards.
   */
  receive(bytes: Uint8Array): string[] {
    const lines: string[] = [];
    for (let at = 0; at < bytes.length;) {
      const end = bytes.indexOf(LINE_BREAK, at);
      this.#keep(bytes.subarray(at, end < 0 ? bytes.length : end));
      if (end < 0) break;
      lines.push(this.#take());
      at = end + 1;
    }
    return lines;
  }

  #keep(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    if (this.#begunBytes + bytes.length > this.#maxLineBytes) {
      throw this.#fault("too-large", `no line break in ${this.#maxLineBytes} bytes`);
    }
    this.#begun.push(bytes.slice());
    this.#begunBytes += bytes.length;
  }

  #take(): string {
    const line = new Uint8Array(this.#begunBytes);
    let at = 0;
    for (const piece of this.#begun) {
      line.set(piece, at);
      at += piece.length;
    }
    let text: string;
    try {
      text = new TextDecoder("utf-8", { fatal: true }).decode(line);
    } catch {
      throw this.#fault("bad-value", "a line is not UTF-8");
    }
    this.#offset += this.#begunBytes + 1;
    this.#begun = [];
    this.#begunBytes = 0;
    return text;
  }

  #fault(fault: "too-large" | "bad-value", message: string): WireError {
    return new WireError("control", this.#offset, fault, `${this.#from}: ${message}`, {
      hint: "is this a kemari's --control socket?",
    });
  }
}
