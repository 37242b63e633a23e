import { TransportError } from "../../errors.ts";
import {
  encodeFrameHeader,
  FRAME_HEADER_BYTES,
  StreamFrameDecoder,
} from "../../packet/stream_frame.ts";
import { readSome } from "../system/channel.ts";
import type { FramePort } from "./frame_port.ts";
import { errno, errnoText, libc } from "../system/libc.ts";
import { ERRNO, SIOCOUTQ } from "../system/linux.ts";

const READ_BYTES = 128 * 1024;
/** How many bytes may wait to be written. */
const BATCH_BYTES = 1024 * 1024;
/**
 * Room for all frames that a {@link FramePort.receive} with a budget of {@link
 * RECEIVE_BUDGET_BYTES} can give: no frame that was read is without a place.
 */
const ROOM_BYTES = 384 * 1024;

/**
 * How much to read from a port at the most, while the frames go to a socket that {@link
 * FrameSocket.hasRoom}.
 */
export const RECEIVE_BUDGET_BYTES = 128 * 1024;

/**
 * Frames over a connected stream socket, as QEMU's `-netdev stream` sends them.
 *
 * Frames that go out are gathered and written with one call: copying 1.5 KB costs less than a call.
 */
export class FrameSocket implements FramePort {
  readonly retryMs = undefined;
  readonly refusedFrames = 0;
  readonly #decoder: StreamFrameDecoder;
  readonly #batch = new Uint8Array(BATCH_BYTES);
  #start = 0;
  #end = 0;
  /** Whether the first byte of the next frame's header has been written ahead. */
  #isProbed = false;
  readonly #read = new Uint8Array(READ_BYTES);

  /**
   * @param fd Connected and non-blocking; closed by {@link close}.
   * @param maxFrameBytes Longer frames from the other side are a fault.
   */
  constructor(readonly fd: number, readonly name: string, maxFrameBytes?: number) {
    this.#decoder = new StreamFrameDecoder(maxFrameBytes);
  }

  send(frame: Uint8Array): boolean {
    const needed = FRAME_HEADER_BYTES + frame.length;
    if (needed > BATCH_BYTES - this.#end) {
      this.flush();
      this.#compact();
      if (needed > BATCH_BYTES - this.#end) return false;
    }
    encodeFrameHeader(this.#batch, this.#end, frame.length);
    this.#batch.set(frame, this.#end + FRAME_HEADER_BYTES);
    this.#end += needed;
    if (this.#isProbed) {
      this.#isProbed = false;
      this.#start++;
    }
    return true;
  }

  /** Whether all frames of one read have room here, even if nothing is written meanwhile. */
  get hasRoom(): boolean {
    if (BATCH_BYTES - this.#end < ROOM_BYTES) this.#compact();
    return BATCH_BYTES - this.#end >= ROOM_BYTES;
  }

  /** Whether the other side has not read all that was written. */
  get isUnread(): boolean {
    const left = new Int32Array(1);
    libc().ioctl(this.fd, SIOCOUTQ, new Uint8Array(left.buffer));
    return left[0] > 0;
  }

  /**
   * Writes one more byte: of what waits, or else the first byte of the next frame's length, which
   * is zero in any frame below 16 MiB. A reader that takes this byte has finished with everything
   * before it.
   *
   * @returns Whether the byte was written.
   * @throws {TransportError}
   */
  probe(): boolean {
    const isEmpty = this.#start === this.#end;
    if (isEmpty && this.#isProbed) return false;
    const byte = isEmpty ? new Uint8Array(1) : this.#batch.slice(this.#start, this.#start + 1);
    if (!this.#write(byte)) return false;
    if (isEmpty) this.#isProbed = true;
    else this.#start++;
    return true;
  }

  flush(): boolean {
    while (this.#start < this.#end) {
      const waiting = this.#batch.subarray(this.#start, this.#end);
      const wrote = Number(libc().write(this.fd, waiting, BigInt(waiting.length)));
      if (wrote < 0) {
        const code = errno();
        if (code === ERRNO.EAGAIN || code === ERRNO.EINTR) return false;
        throw new TransportError(this.name, "write", errnoText(code), { party: "net" });
      }
      this.#start += wrote;
    }
    this.#start = this.#end = 0;
    return true;
  }

  receive(budgetBytes: number, onFrame: (frame: Uint8Array) => void): "more" | "empty" | "end" {
    for (let got = 0; got < budgetBytes;) {
      const count = readSome(this.fd, this.#read, this.name, "net");
      if (count === undefined) return "empty";
      if (count === 0) {
        this.#decoder.end();
        return "end";
      }
      this.#decoder.receive(this.#read, 0, count, onFrame);
      got += count;
    }
    return "more";
  }

  close(): void {
    libc().close(this.fd);
  }

  /** @returns How many bytes were written; 0 if the socket takes none now. */
  #write(bytes: Uint8Array<ArrayBuffer>): number {
    const wrote = Number(libc().write(this.fd, bytes, BigInt(bytes.length)));
    if (wrote >= 0) return wrote;
    const code = errno();
    if (code === ERRNO.EAGAIN || code === ERRNO.EINTR) return 0;
    throw new TransportError(this.name, "write", errnoText(code), { party: "net" });
  }

  #compact(): void {
    this.#batch.copyWithin(0, this.#start, this.#end);
    this.#end -= this.#start;
    this.#start = 0;
  }
}
