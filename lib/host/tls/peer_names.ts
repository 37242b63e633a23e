/** Names in a peer's certificate: those that are expected, and the one that it bears. */
import { foreignText } from "../../foreign_text.ts";
import { cString } from "../system/libc.ts";
import { libssl, takeTlsError } from "./libssl.ts";
import { SSL_CTRL, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS } from "./openssl.ts";

/** Makes OpenSSL require one of these names in the peer's certificate. */
export function expectNames(
  ssl: Deno.PointerValue,
  names: readonly string[],
  isSender: boolean,
): void {
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

/** What a peer's certificate is of; empty without one. */
export function subjectOf(ssl: Deno.PointerValue): string {
  const { ssl: tls, crypto } = libssl();
  const certificate = tls.SSL_get1_peer_certificate(ssl);
  if (certificate === null) return "";
  const text = new Uint8Array(256);
  crypto.X509_NAME_oneline(crypto.X509_get_subject_name(certificate), text, text.length);
  crypto.X509_free(certificate);
  return foreignText(text.subarray(0, text.indexOf(0)));
}
