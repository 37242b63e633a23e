/**
 * Answers a COLO primary as its secondary would, at once, and keeps nothing: what is measured with
 * it is QEMU's own part of a checkpoint.
 *
 * It does not parse the stream: a checkpoint's end is where VMSTATE_SIZE and as many bytes as that
 * says are the last that have come.
 */
import { TransportError } from "../../lib/errors.ts";
import { encodePong, encodeShut } from "../../lib/qemu/return_path.ts";
import { COLO_MESSAGE } from "../../lib/qemu/wire.ts";
import { until } from "../../lib/lab/program/until.ts";

const READ_BYTES = 1 << 20;
const MAX_CHECKPOINT_BYTES = 1 << 26;
/** Silence that means that QEMU has sent all of its first pass, when QMP says that it is at its end. */
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
  /** Of the last checkpoint: mostly the next one's too. */
  #stateBytes = 0;
  readonly #over: Promise<void>;
  #failure: unknown;

  /** @param path Of the Unix socket that QEMU is to migrate to. */
  constructor(path: string) {
    this.#listener = Deno.listen({ transport: "unix", path });
    this.#over = this.#serve().catch((error) => {
      // QEMU has ended, or we have.
      if (!ENDS.some((kind) => error instanceof kind)) this.#failure = error;
    });
  }

  /** Says that the first pass has come, when it has; QMP must have said that it is at its end. */
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

  /** Whether VMSTATE_SIZE is there, and tells of all that is behind it. */
  #sizeIsAt(at: number): boolean {
    return at >= 4 && this.#view.getUint32(at) === COLO_MESSAGE.VMSTATE_SIZE &&
      this.#view.getBigUint64(at + 4) === BigInt(this.#length - at - SIZE_BYTES);
  }

  async #send(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length;) done += await this.#conn!.write(bytes.subarray(done));
  }

  /** @throws What went wrong, other than that QEMU has ended. */
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
