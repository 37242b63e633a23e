import { OutputQueue } from "../system/channel.ts";
import { errno } from "../system/libc.ts";
import { ERRNO } from "../system/linux.ts";
import { libssl } from "./libssl.ts";
import { BIO_CTRL, SSL_ERROR, SSL_KEY_UPDATE_NOT_REQUESTED } from "./openssl.ts";
import { RecordQueue } from "./record_queue.ts";
import { BUFFER_BYTES, type TlsHandle } from "./tls_context.ts";

/** What a descriptor has to be ready for, before a call gets further. */
export type Needs = "read" | "write";

/** How far a write has come. */
export type WriteResult =
  | { readonly at: "done" }
  | { readonly at: "waiting"; readonly needs: Needs }
  /** @property why What `SSL_get_error` says; `code` is the system's error number. */
  | { readonly at: "failed"; readonly why: number; readonly code: number };

const DONE: WriteResult = { at: "done" };

/** What an open TLS connection has to write: cut into records, encrypted, and gathered. */
export class TlsOutput {
  readonly #handle: TlsHandle;
  readonly #recordsPerKey: number;
  readonly #queue = new RecordQueue();
  /** What goes out where the kernel encrypts. */
  #kernel: OutputQueue | undefined;
  /** Whether there may be records in OpenSSL's buffer. */
  #mustFlush = false;
  /** Bytes that had been written when it was empty last. */
  #flushed = 0;
  /** Records written under this key. */
  #keyRecords = 0;

  constructor(handle: TlsHandle, recordsPerKey: number) {
    this.#handle = handle;
    this.#recordsPerKey = recordsPerKey;
  }

  get isInKernel(): boolean {
    return this.#kernel !== undefined;
  }
  /** Bytes ever pushed. */
  get queued(): number {
    return this.#queue.queued + (this.#kernel?.queued ?? 0);
  }
  /** Bytes that have left this process for sure. */
  get written(): number {
    if (this.#kernel !== undefined) return this.#queue.written + this.#kernel.written;
    if (!this.#mustFlush) return this.#queue.written;
    // No more than that can lie in the buffer.
    return Math.max(this.#flushed, this.#queue.written - BUFFER_BYTES);
  }
  get pendingBytes(): number {
    return this.queued - this.written;
  }

  push(pieces: readonly Uint8Array[]): void {
    if (this.#kernel === undefined) this.#queue.push(pieces);
    else this.#kernel.push(pieces);
  }

  /**
   * The handshake is done: from here on the kernel encrypts, if it does.
   *
   * @param fd Where it writes. @param name The endpoint, for its errors.
   */
  begin(fd: number, name: string): void {
    const { crypto } = libssl();
    const inKernel = crypto.BIO_ctrl(this.#handle.output, BIO_CTRL.GET_KTLS_SEND, 0n, null);
    if (inKernel <= 0n) return;
    this.#kernel = new OutputQueue(fd, name, "peer");
    this.#kernel.push(this.#queue.takeRest());
  }

  /**
   * Writes until all is written, or the descriptor takes no more.
   *
   * @throws {TransportError} The kernel encrypts, and the descriptor cannot be written.
   */
  flush(): WriteResult {
    if (this.#kernel !== undefined) {
      return this.#kernel.flush() ? DONE : { at: "waiting", needs: "write" };
    }
    const { ssl } = libssl();
    const queue = this.#queue;
    // Nothing is read while a new key cannot be told for want of room: only where there is some.
    if (this.#keyRecords >= this.#recordsPerKey && !this.#mustFlush) {
      ssl.SSL_key_update(this.#handle.ssl, SSL_KEY_UPDATE_NOT_REQUESTED);
      this.#keyRecords = 0;
    }
    while (queue.pendingBytes > 0) {
      const address = queue.nextAddress();
      const count = ssl.SSL_write(this.#handle.ssl, BigInt(address), queue.nextLength);
      if (count <= 0) {
        const code = errno();
        return resultOf(ssl.SSL_get_error(this.#handle.ssl, count), code);
      }
      queue.advance();
      this.#mustFlush = true;
      this.#keyRecords++;
    }
    return this.#mustFlush ? this.#flushBuffer() : DONE;
  }

  #flushBuffer(): WriteResult {
    const result = libssl().crypto.BIO_ctrl(this.#handle.output, BIO_CTRL.FLUSH, 0n, null);
    const code = errno();
    if (result <= 0n) return resultOf(SSL_ERROR.SYSCALL, code);
    this.#mustFlush = false;
    this.#flushed = this.#queue.written;
    return DONE;
  }
}

function resultOf(why: number, code: number): WriteResult {
  const needs = waitsFor(why, code);
  return needs === undefined ? { at: "failed", why, code } : { at: "waiting", needs };
}

/**
 * What the descriptor has to be ready for, before a call gets further; undefined if it has failed.
 *
 * @param why What `SSL_get_error` says.
 * @param code The system's error number. A key that is renewed is written through a second buffer of
 *   OpenSSL's own, which does not tell that the one below is full: it passes for a failed call.
 */
export function waitsFor(why: number, code: number): Needs | undefined {
  if (why === SSL_ERROR.WANT_READ) return "read";
  if (why === SSL_ERROR.WANT_WRITE) return "write";
  const isFull = why === SSL_ERROR.SYSCALL && (code === ERRNO.EAGAIN || code === ERRNO.EINTR);
  return isFull ? "write" : undefined;
}
