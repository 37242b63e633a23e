import { TransportError, type TransportPhase } from "../../errors.ts";
import { foreignText } from "../../foreign_text.ts";
import type { PresharedKey } from "../../keys/psk_file.ts";
import {
  addressOf,
  OutputQueue,
  type ReadResult,
  readSome,
  shutdownWrite,
} from "../system/channel.ts";
import { cString, errno, errnoText } from "../system/libc.ts";
import type { Reactor, Watch, WatchHandlers } from "../system/reactor.ts";
import type { Descriptors, Encryption, Transport } from "../system/transport.ts";
import { libssl, takeTlsError, textAt } from "./libssl.ts";
import {
  BIO_CTRL_GET_KTLS_SEND,
  SSL_CTRL,
  SSL_ERROR,
  SSL_KEY_UPDATE_NOT_REQUESTED,
  SSL_R,
  X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS,
} from "./openssl.ts";
import { RecordQueue } from "./record_queue.ts";
import { beginCalls, endCalls, type TlsCaller } from "./tls_callbacks.ts";
import type { TlsContext } from "./tls_context.ts";
import { type FailureWords, tlsFailure } from "./tls_failure.ts";
import { type TlsNeeds, TlsWatch } from "./tls_watch.ts";

/** How much is written under one key: a sixth of AES-GCM's limit (RFC 8446, section 5.5). */
const RECORDS_PER_KEY = 2 ** 22;
/**
 * Limit of handshake steps that a peer may cause after the handshake: some, and one more for a
 * number of records. A renewal of its keys takes three (measured).
 */
const SPARE_STEPS = 256;
const RECORDS_PER_STEP = 256;
/** Reads of 64 KiB that are discarded at most before an untrusted connection is closed. */
const DROPPED_PIECES = 64;
const FLOOD = "the peer floods this connection with key updates";

export interface TlsSettings {
  readonly names?: readonly string[];
  readonly recordsPerKey?: number;
}

/** Where a connection is. */
type TlsState =
  /** Neither end knows yet who the other is. */
  | { readonly at: "shaking" }
  | { readonly at: "open" }
  /** No data is trusted any more: after the reader got the error, further data is dropped. */
  | { readonly at: "failed"; readonly error: TransportError; told: boolean }
  | { readonly at: "closed" };

/**
 * A connection over TLS 1.3, by OpenSSL on descriptors that the reactor watches.
 *
 * ```text
 * shaking ──both have proven who they are──► open ──close()──► closed
 *    └──────────── any fault ────────────► failed ◄───┘ any fault
 * ```
 *
 * Two ends in one process take turns on one thread, as all connections do: OpenSSL's error queue is
 * the thread's, and is emptied whenever a call has failed.
 */
export class TlsTransport implements Transport, TlsCaller, TlsNeeds {
  readonly name: string;
  readonly isSocket: boolean;
  readonly keys: readonly PresharedKey[];
  readonly #ssl: Deno.PointerObject;
  readonly #context: TlsContext;
  readonly #descriptors: Descriptors;
  readonly #queue = new RecordQueue();
  /** Output queue for connections that the kernel encrypts. */
  #kernel: OutputQueue | undefined;
  #state: TlsState = { at: "shaking" };
  #readNeeds: "read" | "write" = "read";
  #writeNeeds: "read" | "write" = "write";
  #mayHaveMore = false;
  /** The peer has announced the end of its data. */
  #hasEnded = false;
  #saidEnd = false;
  /** Writing is no longer possible; the peer's earlier data can still be read. */
  #writeError: TransportError | undefined;
  readonly #recordsPerKey: number;
  #readRecords = 0;
  #writtenRecords = 0;
  #steps = 0;
  #said: { readonly identity: string; readonly isKnown: boolean } | undefined;
  #memory: ArrayBufferLike | undefined;
  #memoryAddress = 0;

  /**
   * @param descriptors Closed together with this object.
   * @param options Names, one of which the peer's certificate must have (any certificate if there
   *   are none); and after how many records a key is renewed.
   */
  constructor(
    descriptors: Descriptors,
    context: TlsContext,
    { names = [], recordsPerKey = RECORDS_PER_KEY }: TlsSettings = {},
  ) {
    this.#recordsPerKey = recordsPerKey;
    this.name = descriptors.name;
    this.isSocket = descriptors.isSocket;
    this.keys = context.keys;
    this.#descriptors = descriptors;
    this.#context = context;
    const ssl = this.#ssl = context.open();
    libssl().ssl.SSL_set_rfd(ssl, descriptors.input);
    libssl().ssl.SSL_set_wfd(ssl, descriptors.output);
    if (names.length > 0) expectNames(ssl, names, context.role === "sender");
    const [said] = this.keys;
    if (context.role === "sender" && said !== undefined) {
      this.#said = { identity: said.identity, isKnown: true };
    }
  }

  get queued(): number {
    return this.#queue.queued + (this.#kernel?.queued ?? 0);
  }
  get written(): number {
    return this.#queue.written + (this.#kernel?.written ?? 0);
  }
  get pendingBytes(): number {
    return this.queued - this.written;
  }
  get isShaking(): boolean {
    return this.#state.at === "shaking";
  }
  get readNeeds(): "read" | "write" {
    return this.#readNeeds;
  }
  get writeNeeds(): "read" | "write" {
    return this.#writeNeeds;
  }
  get mayHaveMore(): boolean {
    return this.#mayHaveMore;
  }

  get encryption(): Encryption {
    if (this.#state.at !== "open") return { kind: "tls" };
    const { ssl } = libssl();
    const cipher = textAt(ssl.SSL_CIPHER_get_name(ssl.SSL_get_current_cipher(this.#ssl)));
    const peer = this.#said?.isKnown ? this.#said.identity : subjectOf(this.#ssl);
    return { kind: "tls", peer, cipher, inKernel: this.#kernel !== undefined };
  }

  keyOf(identity: string): PresharedKey | undefined {
    return this.#context.keyOf(identity);
  }

  identified(identity: string, key: PresharedKey | undefined): void {
    this.#said = { identity, isKnown: key !== undefined };
  }

  stepped(): void {
    this.#steps++;
  }

  watch(reactor: Reactor, handlers: WatchHandlers): Watch {
    return new TlsWatch(reactor, this.#descriptors, this, handlers);
  }

  /**
   * Continues the handshake.
   *
   * @returns Whether the handshake is done.
   * @throws {TransportError} in the phase `handshake`: the peer is not the expected one.
   */
  handshake(): boolean {
    if (this.#state.at === "failed") throw this.#state.error;
    if (this.#state.at !== "shaking") return true;
    const { ssl } = libssl();
    beginCalls(this);
    const result = ssl.SSL_do_handshake(this.#ssl);
    const code = errno();
    endCalls();
    if (result === 1) {
      this.#opened();
      return true;
    }
    const why = ssl.SSL_get_error(this.#ssl, result);
    if (why === SSL_ERROR.WANT_READ) this.#readNeeds = "read";
    else if (why === SSL_ERROR.WANT_WRITE) this.#readNeeds = "write";
    else throw this.#fail("handshake", why, code);
    return false;
  }

  #opened(): void {
    const { ssl, crypto } = libssl();
    this.#state = { at: "open" };
    if (this.#said?.isKnown) this.#context.sessionKeys?.use(this.#said.identity);
    this.#readNeeds = "read";
    this.#steps = 0;
    // The peer's first data may have been read together with the last bytes of its handshake.
    this.#mayHaveMore = true;
    if (crypto.BIO_ctrl(ssl.SSL_get_wbio(this.#ssl), BIO_CTRL_GET_KTLS_SEND, 0n, null) <= 0n) {
      return;
    }
    this.#kernel = new OutputQueue(this.#descriptors.output, this.name, "peer");
    this.#kernel.push(this.#queue.takeRest());
  }

  read(buffer: Uint8Array<ArrayBuffer>): ReadResult {
    if (this.#state.at === "failed") return this.#readFailed(this.#state, buffer);
    if (!this.handshake()) return undefined;
    if (this.#hasEnded) return 0;
    const { ssl } = libssl();
    const address = this.#addressOf(buffer.buffer) + buffer.byteOffset;
    let total = 0;
    beginCalls(this);
    try {
      while (total < buffer.length) {
        const steps = this.#steps;
        const count = ssl.SSL_read(this.#ssl, BigInt(address + total), buffer.length - total);
        if (count > 0) {
          total += count;
          this.#readRecords++;
          continue;
        }
        const code = errno();
        const why = ssl.SSL_get_error(this.#ssl, count);
        if (this.#steps > SPARE_STEPS + this.#readRecords / RECORDS_PER_STEP) {
          return this.#endRead(total, this.#failWith("read", { message: FLOOD }));
        }
        if (why === SSL_ERROR.WANT_READ && this.#steps !== steps) continue;
        if (why === SSL_ERROR.WANT_READ || why === SSL_ERROR.WANT_WRITE) {
          this.#readNeeds = why === SSL_ERROR.WANT_READ ? "read" : "write";
          this.#mayHaveMore = false;
          return total > 0 ? total : undefined;
        }
        if (why === SSL_ERROR.ZERO_RETURN) {
          this.#hasEnded = true;
          // The end is reported after the data that came before it.
          this.#mayHaveMore = total > 0;
          return total;
        }
        return this.#endRead(total, this.#fail("read", why, code));
      }
      this.#mayHaveMore = true;
      return total;
    } finally {
      endCalls();
    }
  }

  push(pieces: readonly Uint8Array[]): void {
    if (this.#kernel === undefined) this.#queue.push(pieces);
    else this.#kernel.push(pieces);
  }

  flush(): boolean {
    if (!this.handshake()) return this.pendingBytes === 0;
    if (this.#kernel !== undefined) return this.#kernel.flush();
    if (this.#writeError !== undefined) throw this.#writeError;
    const { ssl } = libssl();
    const queue = this.#queue;
    while (queue.pendingBytes > 0) {
      const address = queue.nextAddress();
      const count = ssl.SSL_write(this.#ssl, BigInt(address), queue.nextLength);
      if (count > 0) {
        queue.advance();
        if (++this.#writtenRecords % this.#recordsPerKey === 0) {
          ssl.SSL_key_update(this.#ssl, SSL_KEY_UPDATE_NOT_REQUESTED);
        }
        continue;
      }
      const code = errno();
      const why = ssl.SSL_get_error(this.#ssl, count);
      if (why !== SSL_ERROR.WANT_READ && why !== SSL_ERROR.WANT_WRITE) {
        throw this.#fail("write", why, code);
      }
      this.#writeNeeds = why === SSL_ERROR.WANT_READ ? "read" : "write";
      return false;
    }
    return true;
  }

  endOutput(): void {
    this.#sayEnd();
    if (this.isSocket) shutdownWrite(this.#descriptors.output);
  }

  close(): void {
    if (this.#state.at === "closed") return;
    this.#sayEnd();
    if (this.#state.at === "failed" && this.isSocket) this.#drop();
    this.#state = { at: "closed" };
    libssl().ssl.SSL_free(this.#ssl);
    this.#descriptors.close();
  }

  /**
   * Discards the received bytes: closing a socket with unread bytes may destroy our alert, which
   * says why.
   */
  #drop(): void {
    const scrap = new Uint8Array(64 * 1024);
    try {
      for (let i = 0; i < DROPPED_PIECES; i++) {
        if (!readSome(this.#descriptors.input, scrap, this.name, "peer")) return;
      }
    } catch {
      // The peer has gone.
    }
  }

  /** Announces the end, once everything is written: so the peer knows that nothing was cut off. */
  #sayEnd(): void {
    if (this.#state.at !== "open" || this.#saidEnd || this.pendingBytes > 0) return;
    this.#saidEnd = libssl().ssl.SSL_shutdown(this.#ssl) >= 0;
    if (!this.#saidEnd) takeTlsError();
  }

  /** Ends a read that has failed: the data before the failure counts. */
  #endRead(total: number, error: TransportError): ReadResult {
    if (total === 0 && this.#state.at === "failed") this.#state.told = true;
    if (total === 0) throw error;
    this.#mayHaveMore = true;
    return total;
  }

  /** Reports the failure once. Later bytes are discarded: closing must not destroy our alert. */
  #readFailed(failed: Extract<TlsState, { at: "failed" }>, scrap: Uint8Array<ArrayBuffer>) {
    if (!failed.told) {
      failed.told = true;
      this.#mayHaveMore = false;
      throw failed.error;
    }
    return readSome(this.#descriptors.input, scrap, this.name, "peer") === 0 ? 0 : undefined;
  }

  /**
   * Notes the result of a call.
   *
   * @param why Result of `SSL_get_error`.
   * @param code The system's error number, taken right after the call.
   */
  #fail(phase: TransportPhase, why: number, code: number): TransportError {
    const { ssl, crypto } = libssl();
    const found = takeTlsError();
    if (why === SSL_ERROR.SYSCALL && code !== 0) {
      const error = new TransportError(this.name, phase, errnoText(code), { party: "peer" });
      if (phase === "write") return this.#writeError = error;
      this.#state = { at: "failed", error, told: false };
      return error;
    }
    const verified = Number(ssl.SSL_get_verify_result(this.#ssl));
    const inHandshake = phase === "handshake" || this.#readRecords === 0;
    const words = tlsFailure({
      role: this.#context.role,
      by: this.keys.length > 0 || this.#said?.isKnown ? "key" : "certificate",
      inHandshake,
      reason: found?.reason ?? SSL_R.UNEXPECTED_EOF_WHILE_READING,
      text: found?.text ?? "unexpected end",
      verified,
      verifiedText: textAt(crypto.X509_verify_cert_error_string(BigInt(verified))) ?? "",
      isSessionKey: this.#context.isForOneSession,
      ...this.#said,
    });
    return this.#failWith(inHandshake ? "handshake" : phase, words);
  }

  #failWith(phase: TransportPhase, { message, hint }: FailureWords): TransportError {
    const error = new TransportError(this.name, phase, message, { party: "peer", hint });
    this.#state = { at: "failed", error, told: false };
    return error;
  }

  #addressOf(memory: ArrayBufferLike): number {
    if (memory !== this.#memory) {
      this.#memory = memory;
      this.#memoryAddress = addressOf(memory);
    }
    return this.#memoryAddress;
  }
}

/** Makes OpenSSL require one of these names in the peer's certificate. */
function expectNames(ssl: Deno.PointerValue, names: readonly string[], isSender: boolean): void {
  const { ssl: tls, crypto } = libssl();
  const param = tls.SSL_get0_param(ssl);
  crypto.X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  for (const name of names) {
    const text = cString(name);
    if (crypto.X509_VERIFY_PARAM_set1_ip_asc(param, text) === 1) continue;
    takeTlsError();
    crypto.X509_VERIFY_PARAM_add1_host(param, text, 0n);
    if (isSender) tls.SSL_ctrl(ssl, SSL_CTRL.SET_TLSEXT_HOSTNAME, 0n, text);
  }
}

function subjectOf(ssl: Deno.PointerValue): string {
  const { ssl: tls, crypto } = libssl();
  const certificate = tls.SSL_get1_peer_certificate(ssl);
  if (certificate === null) return "";
  const text = new Uint8Array(256);
  crypto.X509_NAME_oneline(crypto.X509_get_subject_name(certificate), text, text.length);
  crypto.X509_free(certificate);
  return foreignText(text.subarray(0, text.indexOf(0)));
}
