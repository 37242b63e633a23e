/** Shared by all connections of an end: its credentials, and its TLS settings. */
import { TransportError } from "../../errors.ts";
import { kernelVersion, mayAskForKernelTls } from "../../decisions/kernel_tls.ts";
import { tlsCiphers } from "../../decisions/tls_ciphers.ts";
import type { PresharedKey } from "../../keys/psk_file.ts";
import type { SessionKeys } from "../../keys/session_keys.ts";
import { cString } from "../system/libc.ts";
import { type Libssl, libssl, takeTlsError } from "./libssl.ts";
import {
  BIO_CTRL,
  BIO_NOCLOSE,
  BIO_WRITE_BUFFER,
  SSL_CTRL,
  SSL_FILETYPE_PEM,
  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER,
  SSL_MODE_AUTO_RETRY,
  SSL_MODE_ENABLE_PARTIAL_WRITE,
  SSL_OP,
  SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
  SSL_VERIFY_PEER,
  TLS1_3_VERSION,
  X509_V_FLAG_CRL_CHECK,
} from "./openssl.ts";
import { RECORD_BYTES } from "./record_queue.ts";
import { tlsCallbacks } from "./tls_callbacks.ts";

/** The end that connects is TLS's client; the one that listens is its server. */
export type TlsRole = "sender" | "receiver";

/**
 * A system call serves so many records. More are slower: OpenSSL moves what it has read ahead to the
 * front of its buffer for each record.
 */
const RECORDS_AT_ONCE = 4;
/** A record of TLS 1.3 as it travels: head, a byte that names its kind, and tag. */
const WIRE_RECORD_BYTES = RECORD_BYTES + 5 + 1 + 16;
/** What is read ahead, and gathered before it is written. */
export const BUFFER_BYTES = RECORDS_AT_ONCE * WIRE_RECORD_BYTES + 64;

/** One connection's parts. */
export interface TlsHandle {
  /** `SSL`; frees both. */
  readonly ssl: Deno.PointerObject;
  /** `BIO`: where records go. */
  readonly output: Deno.PointerValue;
}

/** An `SSL_CTX`; its connections live on after it is freed. */
export class TlsContext {
  readonly #pointer: Deno.PointerValue;
  /** Whether the kernel is asked to encrypt what is sent. */
  readonly #asksKernel: boolean;
  /** Whether a sender's key is good for one session only. */
  readonly isForOneSession: boolean;

  private constructor(
    readonly role: TlsRole,
    /** Empty if certificates are used. */
    readonly keys: readonly PresharedKey[],
    /** Further keys of a receiver; they come and go. */
    readonly sessionKeys?: SessionKeys,
    isForOneSession = false,
  ) {
    this.isForOneSession = isForOneSession;
    const { major, minor } = libssl();
    this.#asksKernel = mayAskForKernelTls(kernelVersion(Deno.osRelease()), [major, minor]);
    this.#pointer = newContext(libssl(), role, this.#asksKernel);
    const { ssl } = libssl();
    const { client, server } = tlsCallbacks();
    if (role === "receiver" && (keys.length > 0 || sessionKeys !== undefined)) {
      ssl.SSL_CTX_set_psk_server_callback(this.#pointer, server);
      // With certificates beside a key, OpenSSL wants it: SSL_CTX_set_session_id_context(3).
      ssl.SSL_CTX_set_session_id_context(this.#pointer, cString("kemari"), 6);
    } else if (keys.length > 0) ssl.SSL_CTX_set_psk_client_callback(this.#pointer, client);
  }

  /** @throws {TransportError} OpenSSL cannot be used. */
  static ofKeys(
    role: TlsRole,
    keys: readonly PresharedKey[],
    sessionKeys?: SessionKeys,
  ): TlsContext {
    return new TlsContext(role, keys, sessionKeys);
  }

  /** Of a sender that ssh has brought a key for. @throws {TransportError} as {@link ofKeys}. */
  static ofSessionKey(key: PresharedKey): TlsContext {
    return new TlsContext("sender", [key], undefined, true);
  }

  /**
   * Both ends need a certificate from the authority in `files.ca`; a sender with a session's key
   * needs none.
   *
   * @throws {TransportError} OpenSSL cannot be used, or does not accept a file.
   */
  static ofCertificates(
    role: TlsRole,
    files: CertificateFiles,
    sessionKeys?: SessionKeys,
  ): TlsContext {
    const context = new TlsContext(role, [], sessionKeys);
    try {
      useCertificates(libssl(), context.#pointer, files);
      return context;
    } catch (error) {
      context.free();
      throw error;
    }
  }

  /** The key that a sender means by this name. */
  keyOf(identity: string): PresharedKey | undefined {
    return this.keys.find((key) => key.identity === identity) ??
      this.sessionKeys?.find(identity, performance.now());
  }

  /**
   * A new connection, which the caller frees.
   *
   * Records are written through a buffer in front of the descriptor: several become one system call,
   * and wake the peer once (measured, 2 cores: 12 % less CPU time at both ends together). Whoever
   * writes has to flush it.
   *
   * @param input Descriptors, which stay the caller's.
   */
  open(input: number, output: number): TlsHandle {
    const { ssl, crypto } = libssl();
    const handle = ssl.SSL_new(this.#pointer);
    if (handle === null) throw cannot("TLS", takeTlsError()?.text ?? "no memory");
    ssl.SSL_set_rfd(handle, input);
    const buffer = crypto.BIO_new(crypto.BIO_f_buffer());
    crypto.BIO_int_ctrl(buffer, BIO_CTRL.SET_BUFF_SIZE, BigInt(BUFFER_BYTES), BIO_WRITE_BUFFER);
    const socket = crypto.BIO_new_socket(output, BIO_NOCLOSE);
    // The kernel's own encryption knows nothing of a buffer.
    const written = this.#asksKernel ? socket : crypto.BIO_push(buffer, socket);
    ssl.SSL_set0_wbio(handle, written);
    if (this.#asksKernel) crypto.BIO_free(buffer);
    if (this.role === "sender") ssl.SSL_set_connect_state(handle);
    else ssl.SSL_set_accept_state(handle);
    return { ssl: handle, output: written };
  }

  free(): void {
    libssl().ssl.SSL_CTX_free(this.#pointer);
  }
}

/** Paths of an end's certificates: PEM files. */
export interface CertificateFiles {
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
  /** The authority's revocation list, if there is one. */
  readonly crl?: string;
}

function newContext({ ssl }: Libssl, role: TlsRole, asksKernel: boolean): Deno.PointerValue {
  const context = ssl.SSL_CTX_new(ssl.TLS_method());
  if (context === null) throw cannot("TLS", takeTlsError()?.text ?? "no memory");
  const control = (command: number, value: bigint) =>
    ssl.SSL_CTX_ctrl(context, command, value, null);
  control(SSL_CTRL.SET_MIN_PROTO_VERSION, TLS1_3_VERSION);
  control(SSL_CTRL.SET_MAX_PROTO_VERSION, TLS1_3_VERSION);
  // A write reports each record, and may be repeated from another address.
  control(SSL_CTRL.MODE, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  // A read returns from time to time, however many messages without data arrive.
  control(SSL_CTRL.CLEAR_MODE, SSL_MODE_AUTO_RETRY);
  control(SSL_CTRL.SET_READ_AHEAD, 1n);
  ssl.SSL_CTX_set_default_read_buffer_len(context, BigInt(BUFFER_BYTES));
  // No session is resumed: each connection proves again who is there.
  control(SSL_CTRL.SET_SESS_CACHE_MODE, 0n);
  ssl.SSL_CTX_set_num_tickets(context, 0n);
  ssl.SSL_CTX_set_options(
    context,
    SSL_OP.NO_TICKET | SSL_OP.NO_COMPRESSION | SSL_OP.NO_RENEGOTIATION |
      (role === "receiver" ? SSL_OP.CIPHER_SERVER_PREFERENCE | SSL_OP.PRIORITIZE_CHACHA : 0n) |
      (asksKernel ? SSL_OP.ENABLE_KTLS : 0n),
  );
  ssl.SSL_CTX_set_ciphersuites(context, cString(tlsCiphers(cpuInfo())));
  ssl.SSL_CTX_set_info_callback(context, tlsCallbacks().info);
  return context;
}

function useCertificates(
  { ssl, crypto }: Libssl,
  context: Deno.PointerValue,
  files: CertificateFiles,
) {
  const load = (path: string, done: number) => {
    if (done === 1) return takeTlsError();
    const why = takeTlsError()?.text ?? "unknown format";
    throw cannot(path, `OpenSSL cannot use it: ${why}`, "the file has to be PEM");
  };
  load(files.ca, ssl.SSL_CTX_load_verify_file(context, cString(files.ca)));
  load(
    files.certificate,
    ssl.SSL_CTX_use_certificate_chain_file(context, cString(files.certificate)),
  );
  load(files.key, ssl.SSL_CTX_use_PrivateKey_file(context, cString(files.key), SSL_FILETYPE_PEM));
  load(files.key, ssl.SSL_CTX_check_private_key(context));
  if (files.crl !== undefined) {
    const store = ssl.SSL_CTX_get_cert_store(context);
    const lookup = crypto.X509_STORE_add_lookup(store, crypto.X509_LOOKUP_file());
    const count = crypto.X509_load_crl_file(lookup, cString(files.crl), SSL_FILETYPE_PEM);
    load(files.crl, Math.min(1, count));
    crypto.X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
  }
  ssl.SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, null);
}

function cannot(what: string, why: string, hint?: string): TransportError {
  return new TransportError(what, "load", why, { party: "user", hint });
}

function cpuInfo(): string {
  try {
    return Deno.readTextFileSync("/proc/cpuinfo");
  } catch {
    return "";
  }
}
