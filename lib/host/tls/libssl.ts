/**
 * OpenSSL's functions for TLS, from the system's own libraries: the distribution updates them, and
 * they use the processor's instructions. They are loaded at the first call of {@link libssl}, so
 * that OpenSSL is only necessary for TLS.
 */
import { TransportError } from "../../errors.ts";

const SSL_SYMBOLS = {
  TLS_method: { parameters: [], result: "pointer" },
  SSL_CTX_new: { parameters: ["pointer"], result: "pointer" },
  SSL_CTX_free: { parameters: ["pointer"], result: "void" },
  SSL_CTX_ctrl: { parameters: ["pointer", "i32", "i64", "pointer"], result: "i64" },
  SSL_CTX_set_options: { parameters: ["pointer", "u64"], result: "u64" },
  SSL_CTX_set_num_tickets: { parameters: ["pointer", "usize"], result: "i32" },
  SSL_CTX_set_ciphersuites: { parameters: ["pointer", "buffer"], result: "i32" },
  SSL_CTX_set_default_read_buffer_len: { parameters: ["pointer", "usize"], result: "void" },
  SSL_CTX_set_info_callback: { parameters: ["pointer", "pointer"], result: "void" },
  SSL_CTX_set_psk_client_callback: { parameters: ["pointer", "pointer"], result: "void" },
  SSL_CTX_set_psk_server_callback: { parameters: ["pointer", "pointer"], result: "void" },
  SSL_CTX_set_session_id_context: {
    parameters: ["pointer", "buffer", "u32"],
    result: "i32",
  },
  SSL_CTX_set_verify: { parameters: ["pointer", "i32", "pointer"], result: "void" },
  SSL_CTX_use_certificate_chain_file: { parameters: ["pointer", "buffer"], result: "i32" },
  SSL_CTX_use_PrivateKey_file: { parameters: ["pointer", "buffer", "i32"], result: "i32" },
  SSL_CTX_check_private_key: { parameters: ["pointer"], result: "i32" },
  SSL_CTX_load_verify_file: { parameters: ["pointer", "buffer"], result: "i32" },
  SSL_CTX_get_cert_store: { parameters: ["pointer"], result: "pointer" },
  SSL_new: { parameters: ["pointer"], result: "pointer" },
  SSL_free: { parameters: ["pointer"], result: "void" },
  SSL_ctrl: { parameters: ["pointer", "i32", "i64", "buffer"], result: "i64" },
  SSL_set_rfd: { parameters: ["pointer", "i32"], result: "i32" },
  SSL_set0_wbio: { parameters: ["pointer", "pointer"], result: "void" },
  SSL_set_connect_state: { parameters: ["pointer"], result: "void" },
  SSL_set_accept_state: { parameters: ["pointer"], result: "void" },
  SSL_do_handshake: { parameters: ["pointer"], result: "i32" },
  /** These two get their buffers as addresses: a number is cheaper than a view for each record. */
  SSL_read: { parameters: ["pointer", "usize", "i32"], result: "i32" },
  SSL_write: { parameters: ["pointer", "usize", "i32"], result: "i32" },
  SSL_shutdown: { parameters: ["pointer"], result: "i32" },
  SSL_key_update: { parameters: ["pointer", "i32"], result: "i32" },
  SSL_get_error: { parameters: ["pointer", "i32"], result: "i32" },
  SSL_get0_param: { parameters: ["pointer"], result: "pointer" },
  SSL_get_verify_result: { parameters: ["pointer"], result: "i64" },
  SSL_get1_peer_certificate: { parameters: ["pointer"], result: "pointer" },
  SSL_get_current_cipher: { parameters: ["pointer"], result: "pointer" },
  SSL_CIPHER_get_name: { parameters: ["pointer"], result: "pointer" },
} as const;

const CRYPTO_SYMBOLS = {
  OPENSSL_version_major: { parameters: [], result: "u32" },
  OPENSSL_version_minor: { parameters: [], result: "u32" },
  ERR_get_error: { parameters: [], result: "u64" },
  ERR_reason_error_string: { parameters: ["u64"], result: "pointer" },
  BIO_f_buffer: { parameters: [], result: "pointer" },
  BIO_new: { parameters: ["pointer"], result: "pointer" },
  BIO_int_ctrl: { parameters: ["pointer", "i32", "i64", "i32"], result: "i64" },
  BIO_new_socket: { parameters: ["i32", "i32"], result: "pointer" },
  BIO_push: { parameters: ["pointer", "pointer"], result: "pointer" },
  BIO_ctrl: { parameters: ["pointer", "i32", "i64", "pointer"], result: "i64" },
  BIO_new_file: { parameters: ["buffer", "buffer"], result: "pointer" },
  BIO_free: { parameters: ["pointer"], result: "i32" },
  PEM_read_bio_X509: {
    parameters: ["pointer", "pointer", "pointer", "pointer"],
    result: "pointer",
  },
  X509_free: { parameters: ["pointer"], result: "void" },
  X509_get0_notBefore: { parameters: ["pointer"], result: "pointer" },
  X509_get0_notAfter: { parameters: ["pointer"], result: "pointer" },
  X509_get_subject_name: { parameters: ["pointer"], result: "pointer" },
  X509_NAME_oneline: { parameters: ["pointer", "buffer", "i32"], result: "pointer" },
  X509_verify_cert_error_string: { parameters: ["i64"], result: "pointer" },
  X509_STORE_set_flags: { parameters: ["pointer", "u64"], result: "i32" },
  X509_STORE_add_lookup: { parameters: ["pointer", "pointer"], result: "pointer" },
  X509_LOOKUP_file: { parameters: [], result: "pointer" },
  X509_load_crl_file: { parameters: ["pointer", "buffer", "i32"], result: "i32" },
  X509_VERIFY_PARAM_set_hostflags: { parameters: ["pointer", "u32"], result: "void" },
  X509_VERIFY_PARAM_add1_host: { parameters: ["pointer", "buffer", "usize"], result: "i32" },
  X509_VERIFY_PARAM_set1_ip_asc: { parameters: ["pointer", "buffer"], result: "i32" },
  ASN1_TIME_diff: { parameters: ["buffer", "buffer", "pointer", "pointer"], result: "i32" },
} as const;

/** OpenSSL's functions and version. */
export interface Libssl {
  readonly ssl: Deno.DynamicLibrary<typeof SSL_SYMBOLS>["symbols"];
  readonly crypto: Deno.DynamicLibrary<typeof CRYPTO_SYMBOLS>["symbols"];
  readonly major: number;
  readonly minor: number;
}

/** The names by which the dynamic linker finds OpenSSL 3. */
const NAMES = { ssl: "libssl.so.3", crypto: "libcrypto.so.3" };

/**
 * Opens OpenSSL.
 *
 * @param names Names of the libraries; tests use others.
 * @throws {TransportError} OpenSSL is missing or older than 3.0. Data is not sent unencrypted
 *   instead.
 */
export function openLibssl(names = NAMES): Libssl {
  try {
    // In this order: the first depends on the second.
    const ssl = Deno.dlopen(names.ssl, SSL_SYMBOLS).symbols;
    const crypto = Deno.dlopen(names.crypto, CRYPTO_SYMBOLS).symbols;
    const [major, minor] = [crypto.OPENSSL_version_major(), crypto.OPENSSL_version_minor()];
    if (major < 3) throw new Error(`it is OpenSSL ${major}.${minor}`);
    return { ssl, crypto, major, minor };
  } catch (cause) {
    throw new TransportError(
      names.ssl,
      "load",
      `OpenSSL 3.0 or later, which encrypts the link, cannot be used: ${(cause as Error).message}`,
      {
        hint: "install Debian's package libssl3 (from Debian 13 on: libssl3t64); nothing was sent",
        party: "host",
        cause,
      },
    );
  }
}

let library: Libssl | undefined;

/** OpenSSL, opened at the first call. @throws {TransportError} as {@link openLibssl}. */
export function libssl(): Libssl {
  return library ??= openLibssl();
}

/** The library whose error numbers {@link TlsError} has: OpenSSL's `ERR_LIB_SSL`. */
const ERR_LIB_SSL = 20;

/** The first error of OpenSSL's queue, taken when the queue was emptied. */
export interface TlsError {
  /** OpenSSL's number, if its TLS part has found the error; else 0. */
  readonly reason: number;
  /** In OpenSSL's words. */
  readonly text: string;
}

/** Takes OpenSSL's error; undefined if there was none. */
export function takeTlsError(): TlsError | undefined {
  const { crypto } = libssl();
  let first: TlsError | undefined;
  for (;;) {
    const code = crypto.ERR_get_error();
    if (code === 0n) return first;
    first ??= {
      reason: Number(code >> 23n & 0xffn) === ERR_LIB_SSL ? Number(code & 0x7fffffn) : 0,
      text: textAt(crypto.ERR_reason_error_string(code)) ?? `error ${code.toString(16)}`,
    };
  }
}

/** A C string; undefined for a null pointer. */
export function textAt(pointer: Deno.PointerValue): string | undefined {
  return pointer === null ? undefined : Deno.UnsafePointerView.getCString(pointer);
}
