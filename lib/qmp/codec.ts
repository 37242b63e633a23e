/**
 * QMP on the wire: one JSON object after another, in both directions.
 *
 * QEMU ends each object with a line break, and with `pretty=on` puts line breaks inside too; so an
 * object ends where its braces close, not with its line. Pure: no I/O.
 *
 * @see QEMU docs/interop/qmp-spec.rst
 */
import { WireError, type WireFault } from "../errors.ts";

export type JsonObject = { readonly [key: string]: unknown };

/** One command for QEMU. */
export interface QmpCommand {
  readonly execute: string;
  readonly arguments?: JsonObject;
  /** Whether to execute it ahead of commands that still run, if QEMU offers that. */
  readonly outOfBand?: boolean;
}

/** The longest message that is read; QEMU's own schema, its longest answer, has about 0.3 MB. */
const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;

/** Encodes a command as one line. */
export function encodeCommand(command: QmpCommand, id: number): Uint8Array {
  const verb = command.outOfBand === true ? "exec-oob" : "execute";
  const message = { [verb]: command.execute, arguments: command.arguments, id };
  return new TextEncoder().encode(JSON.stringify(message) + "\r\n");
}

/** A decoded message and where it began, in bytes from the start of the connection. */
export interface QmpMessage {
  readonly offset: number;
  readonly object: JsonObject;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN = 0x7b;
const CLOSE = 0x7d;

/** Takes bytes in any pieces and gives whole messages. Bytes given to it are copied. */
export class MessageDecoder {
  readonly #maxMessageBytes: number;
  /** The begun message: only its first `#lengthBytes` bytes are in use. */
  #buffer = new Uint8Array(4096);
  #lengthBytes = 0;
  /** Bytes of the connection before the begun message. */
  #offset = 0;
  #depth = 0;
  #inText = false;
  #escaped = false;
  readonly #messages: QmpMessage[] = [];

  constructor(maxMessageBytes = MAX_MESSAGE_BYTES) {
    this.#maxMessageBytes = maxMessageBytes;
  }

  /**
   * @throws {WireError} `bad-value` at a byte that begins no object, or if an object is not JSON;
   *   `too-large` if a message is longer than the bound. The decoder must not be used afterwards.
   */
  receive(bytes: Uint8Array): void {
    let begin = 0;
    for (let at = 0; at < bytes.length; at++) {
      const byte = bytes[at];
      if (this.#depth === 0) {
        if (byte === 0x20 || byte === 0x09 || byte === 0x0a || byte === 0x0d) continue;
        if (byte !== OPEN) {
          throw this.#fault(at, "bad-value", `a message cannot begin with byte ${hex(byte)}`);
        }
        begin = at;
      }
      if (!this.#step(byte)) continue;
      this.#keep(bytes.subarray(begin, at + 1));
      this.#emit(this.#offset + at + 1 - this.#lengthBytes);
    }
    if (this.#depth > 0) this.#keep(bytes.subarray(begin));
    this.#offset += bytes.length;
  }

  /** The next whole message, if there is one. */
  take(): QmpMessage | undefined {
    return this.#messages.shift();
  }

  /** @throws {WireError} `truncated` if the connection ended within a message. */
  end(): void {
    if (this.#depth > 0) throw this.#fault(0, "truncated", "the connection ended in a message");
  }

  /** Takes a byte. @returns Whether it closes the message. */
  #step(byte: number): boolean {
    if (this.#inText) {
      if (this.#escaped) this.#escaped = false;
      else if (byte === BACKSLASH) this.#escaped = true;
      else if (byte === QUOTE) this.#inText = false;
    } else if (byte === QUOTE) {
      this.#inText = true;
    } else if (byte === OPEN) {
      this.#depth++;
    } else if (byte === CLOSE) {
      this.#depth--;
      return this.#depth === 0;
    }
    return false;
  }

  #keep(bytes: Uint8Array): void {
    const needed = this.#lengthBytes + bytes.length;
    if (needed > this.#maxMessageBytes) {
      throw this.#fault(0, "too-large", `a message has more than ${this.#maxMessageBytes} bytes`);
    }
    if (needed > this.#buffer.length) {
      const larger = new Uint8Array(Math.max(needed, 2 * this.#buffer.length));
      larger.set(this.#buffer.subarray(0, this.#lengthBytes));
      this.#buffer = larger;
    }
    this.#buffer.set(bytes, this.#lengthBytes);
    this.#lengthBytes = needed;
  }

  #emit(offset: number): void {
    const bytes = this.#buffer.subarray(0, this.#lengthBytes);
    this.#lengthBytes = 0;
    let object: JsonObject;
    try {
      object = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    } catch (cause) {
      throw new WireError("qmp", offset, "bad-value", "a message is not valid JSON", { cause });
    }
    this.#messages.push({ offset, object });
  }

  #fault(at: number, kind: WireFault, message: string): WireError {
    return new WireError("qmp", this.#offset + at, kind, message, {
      hint: "is this socket QEMU's QMP (-qmp), not its human monitor (-monitor)?",
    });
  }
}

function hex(byte: number): string {
  return `0x${byte.toString(16).padStart(2, "0")}`;
}
