/**
 * Gives a COLO primary its secondary's answers at once, and keeps nothing: this measures QEMU's own
 * part of a checkpoint.
 *
 * The stream is not parsed: a checkpoint has ended when the last bytes received are VMSTATE_SIZE
 * and the number of bytes that it announces.
 */
import { TransportError } from "../../lib/errors.ts";
import { encodePong, encodeShut } from "../../lib/qemu/return_path.ts";
import { COLO_MESSAGE } from "../../lib/qemu/wire.ts";
import { until } from "../../lib/lab/program/until.ts";

const READ_BYTES = 1 << 20;
const MAX_CHECKPOINT_BYTES = 1 << 26;
/** After a silence of this length QEMU has sent all of its first pass, if QMP reports its end. */
const QUIET_MS = 150;
/** COMMAND, PING, four bytes. */
const PING = [0x08, 0x00, 0x02, 0x00, 0x04];
const ENDS = [
  Deno.errors.BadResource,
  Deno.errors.BrokenPipe,
  Deno.errors.ConnectionReset,
  Deno.errors.Interrupted,
];
/** VMSTATE_SIZE and its u64. */
const SIZE_BYTES = 12;

export class StandIn implements AsyncDisposable {
  readonly #listener: Deno.UnixListener;
  readonly #buffer = new Uint8Array(MAX_CHECKPOINT_BYTES);
  readonly #view = new DataView(this.#buffer.buffer);
  #length = 0;
  #conn: Deno.Conn | undefined;
  #phase: "first pass" | "running" | "checkpoint" = "first pass";
  #ponged = false;
  #heardAt = performance.now();
  /** The size in the last checkpoint: mostly that of the next too. */
  #stateBytes = 0;
  readonly #over: Promise<void>;
  #failure: unknown;

  /** @param path Path of the Unix socket that QEMU is to migrate to. */
  constructor(path: string) {
    this.#listener = Deno.listen({ transport: "unix", path });
    this.#over = this.#serve().catch((error) => {
      // QEMU or this object has closed the connection.
      if (!ENDS.some((kind) => error instanceof kind)) this.#failure = error;
    });
  }

  /**
   * Waits for the rest of the first pass, and confirms it; QMP must have reported its end before.
   */
  async ready(signal: AbortSignal): Promise<void> {
    await until(() => performance.now() - this.#heardAt > QUIET_MS, "the first pass's end", {
      signal,
    });
    this.#length = 0;
    this.#phase = "running";
    await this.#send(encodeShut(0));
    await this.#send(messages(COLO_MESSAGE.CHECKPOINT_READY));
  }

  async #serve(): Promise<void> {
    this.#conn = await this.#listener.accept();
    const chunk = new Uint8Array(READ_BYTES);
    for (;;) {
      const read = await this.#conn.read(chunk);
      if (read === null) return;
      this.#heardAt = performance.now();
      await this.#receive(chunk.subarray(0, read));
    }
  }

  async #receive(bytes: Uint8Array): Promise<void> {
    if (this.#phase === "first pass") {
      if (!this.#ponged) await this.#pong(bytes);
      return;
    }
    if (this.#length + bytes.length > MAX_CHECKPOINT_BYTES) {
      throw new TransportError("stand-in", "read", "QEMU's checkpoint does not end");
    }
    this.#buffer.set(bytes, this.#length);
    this.#length += bytes.length;
    if (this.#phase === "running" && this.#length >= 4) {
      this.#buffer.copyWithin(0, 4, this.#length);
      this.#length -= 4;
      this.#phase = "checkpoint";
      await this.#send(messages(COLO_MESSAGE.CHECKPOINT_REPLY));
    }
    if (this.#phase === "checkpoint" && this.#isWhole()) {
      this.#length = 0;
      this.#phase = "running";
      await this.#send(messages(COLO_MESSAGE.VMSTATE_RECEIVED, COLO_MESSAGE.VMSTATE_LOADED));
    }
  }

  async #pong(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at + PING.length + 4 <= bytes.length; at++) {
      if (!PING.every((byte, i) => bytes[at + i] === byte)) continue;
      const value = at + PING.length;
      this.#ponged = true;
      return await this.#send(encodePong(bytes.slice(value, value + 4)));
    }
  }

  #isWhole(): boolean {
    const last = this.#length - SIZE_BYTES;
    if (this.#sizeIsAt(last - this.#stateBytes)) return true;
    for (let at = last; at >= 4; at--) {
      if (!this.#sizeIsAt(at)) continue;
      this.#stateBytes = last - at;
      return true;
    }
    return false;
  }

  /** Whether VMSTATE_SIZE has come, and announces exactly the bytes that follow it. */
  #sizeIsAt(at: number): boolean {
    return at >= 4 && this.#view.getUint32(at) === COLO_MESSAGE.VMSTATE_SIZE &&
      this.#view.getBigUint64(at + 4) === BigInt(this.#length - at - SIZE_BYTES);
  }

  async #send(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length;) done += await this.#conn!.write(bytes.subarray(done));
  }

  /** @throws The error, unless QEMU has just ended. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    try {
      this.#conn?.close();
    } catch { /* It has been. */ }
    await this.#over;
    if (this.#failure !== undefined) throw this.#failure;
  }
}

function messages(...words: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(4 * words.length);
  words.forEach((word, i) => new DataView(bytes.buffer).setUint32(4 * i, word));
  return bytes;
}
