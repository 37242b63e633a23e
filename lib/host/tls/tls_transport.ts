import { TransportError, type TransportPhase } from "../../errors.ts";
import type { PresharedKey } from "../../keys/psk_file.ts";
import { addressOf, type ReadResult, readSome, shutdownWrite } from "../system/channel.ts";
import { errno, errnoText } from "../system/libc.ts";
import type { Reactor, Watch, WatchHandlers } from "../system/reactor.ts";
import type { Descriptors, Encryption, Transport } from "../system/transport.ts";
import { libssl, takeTlsError, textAt } from "./libssl.ts";
import { SSL_ERROR, SSL_R } from "./openssl.ts";
import { expectNames, subjectOf } from "./peer_names.ts";
import { beginCalls, endCalls, type TlsCaller } from "./tls_callbacks.ts";
import type { TlsContext } from "./tls_context.ts";
import { TlsOutput, waitsFor } from "./tls_output.ts";
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
  readonly #output: TlsOutput;
  readonly #context: TlsContext;
  readonly #descriptors: Descriptors;
  #state: TlsState = { at: "shaking" };
  #readNeeds: "read" | "write" = "read";
  #writeNeeds: "read" | "write" = "write";
  #mayHaveMore = false;
  /** The peer has announced the end of its data. */
  #hasEnded = false;
  #saidEnd = false;
  /** Writing is no longer possible; the peer's earlier data can still be read. */
  #writeError: TransportError | undefined;
  #readRecords = 0;
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
    this.name = descriptors.name;
    this.isSocket = descriptors.isSocket;
    this.keys = context.keys;
    this.#descriptors = descriptors;
    this.#context = context;
    const handle = context.open(descriptors.input, descriptors.output);
    const ssl = this.#ssl = handle.ssl;
    this.#output = new TlsOutput(handle, recordsPerKey);
    if (names.length > 0) expectNames(ssl, names, context.role === "sender");
    const [said] = this.keys;
    if (context.role === "sender" && said !== undefined) {
      this.#said = { identity: said.identity, isKnown: true };
    }
  }

  get queued(): number {
    return this.#output.queued;
  }
  get written(): number {
    return this.#output.written;
  }
  get pendingBytes(): number {
    return this.#output.pendingBytes;
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
    return { kind: "tls", peer, cipher, inKernel: this.#output.isInKernel };
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
    const needs = waitsFor(why, code);
    if (needs === undefined) throw this.#fail("handshake", why, code);
    this.#readNeeds = needs;
    return false;
  }

  #opened(): void {
    this.#state = { at: "open" };
    if (this.#said?.isKnown) this.#context.sessionKeys?.use(this.#said.identity);
    this.#readNeeds = "read";
    this.#steps = 0;
    // The peer's first data may have been read together with the last bytes of its handshake.
    this.#mayHaveMore = true;
    this.#output.begin(this.#descriptors.output, this.name);
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
        const needs = waitsFor(why, code);
        if (needs === "read" && this.#steps !== steps) continue;
        if (needs !== undefined) {
          this.#readNeeds = needs;
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
    this.#output.push(pieces);
  }

  flush(): boolean {
    if (!this.handshake()) return this.pendingBytes === 0;
    if (this.#writeError !== undefined) throw this.#writeError;
    const result = this.#output.flush();
    if (result.at === "failed") throw this.#fail("write", result.why, result.code);
    if (result.at === "waiting") this.#writeNeeds = result.needs;
    return result.at === "done";
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
