/** Error messages for a failed TLS connection: the cause, and what to do. */
import type { TlsRole } from "./tls_context.ts";
import { ALERT, SSL_AD_REASON_OFFSET, SSL_R, X509_V_ERR } from "./openssl.ts";

/** The facts about a failure. */
export interface SeenFailure {
  /** Our own end. */
  readonly role: TlsRole;
  /** How the ends prove who they are. */
  readonly by: "key" | "certificate";
  /** Whether the peer has not proven who it is yet, or may not have accepted us. */
  readonly inHandshake: boolean;
  /** OpenSSL's `SSL_R_…`; 0 if there is none. */
  readonly reason: number;
  /** OpenSSL's words for it. */
  readonly text: string;
  /** OpenSSL's `X509_V_ERR_…`, 0 for a valid certificate; and OpenSSL's words for it. */
  readonly verified: number;
  readonly verifiedText: string;
  /** The name of the key that the sender has sent: this end or the peer. */
  readonly identity?: string;
  /** Whether this end has a key of that name. */
  readonly isKnown?: boolean;
  /** Whether ssh has brought that key, for one session. */
  readonly isSessionKey?: boolean;
}

export interface FailureWords {
  readonly message: string;
  readonly hint?: string;
}

const SAME_FILE = "give both ends the same --key file";
const ONE_SESSION =
  "a key that ssh has brought is good for a minute, at the recv that ssh has found: " +
  "does another one listen at this address?";
const SAME_CREDENTIALS = "both ends need the same --key, or a --tls-dir of the same authority";

/** Puts a failure into words. */
export function tlsFailure(seen: SeenFailure): FailureWords {
  const peer = seen.role === "sender" ? "the secondary" : "the sender";
  if (seen.reason >= SSL_AD_REASON_OFFSET) {
    return refusedByPeer(seen, peer, seen.reason - SSL_AD_REASON_OFFSET);
  }
  switch (seen.reason) {
    case SSL_R.DECRYPTION_FAILED_OR_BAD_RECORD_MAC:
    case SSL_R.BAD_RECORD_TYPE:
      return { message: "what came was changed on its way, or is no part of this connection" };
    case SSL_R.UNEXPECTED_EOF_WHILE_READING:
      return seen.inHandshake
        ? { message: `${peer} closed the connection before it had proven who it is` }
        : { message: "the connection ended without TLS's close: it was cut" };
  }
  if (!seen.inHandshake) return { message: `TLS: ${seen.text}` };
  switch (seen.reason) {
    case SSL_R.CERTIFICATE_VERIFY_FAILED:
      return badCertificate(seen, peer);
    case SSL_R.BINDER_DOES_NOT_VERIFY:
      return { message: `${peer}'s key "${seen.identity}" is not the one here`, hint: SAME_FILE };
    case SSL_R.PEER_DID_NOT_RETURN_A_CERTIFICATE:
      return { message: `${peer} has no certificate`, hint: SAME_CREDENTIALS };
    case SSL_R.UNSUPPORTED_PROTOCOL:
    case SSL_R.WRONG_SSL_VERSION:
      return {
        message: `${peer} speaks no TLS 1.3 (${seen.text})`,
        hint: "only TLS 1.3 is spoken",
      };
    case SSL_R.WRONG_VERSION_NUMBER:
    case SSL_R.HTTP_REQUEST:
    case SSL_R.HTTPS_PROXY_REQUEST:
    case SSL_R.PACKET_LENGTH_TOO_LONG:
    case SSL_R.UNEXPECTED_MESSAGE:
    case SSL_R.UNEXPECTED_RECORD:
      return {
        message: `${peer} speaks no TLS`,
        hint: "is it a kemari with the same --key or --tls-dir?",
      };
  }
  if (seen.identity !== undefined && seen.isKnown === false) {
    return { message: `${peer} says a key "${seen.identity}", which is not here`, hint: SAME_FILE };
  }
  return { message: `TLS with ${peer} did not come about: ${seen.text}`, hint: SAME_CREDENTIALS };
}

/** The peer's certificate was not accepted here. */
function badCertificate({ verified, verifiedText, role }: SeenFailure, peer: string): FailureWords {
  const whose = `${peer}'s certificate`;
  switch (verified) {
    case X509_V_ERR.CERT_HAS_EXPIRED:
      return { message: `${whose} has expired`, hint: "renew it there; is the clock right?" };
    case X509_V_ERR.CERT_NOT_YET_VALID:
      return { message: `${whose} is not yet valid`, hint: "are both hosts' clocks right?" };
    case X509_V_ERR.HOSTNAME_MISMATCH:
    case X509_V_ERR.IP_ADDRESS_MISMATCH:
      return {
        message: `${whose} bears another name`,
        hint: role === "sender"
          ? "it has to bear the host's name or address, or what --tls-name says"
          : "--tls-name says which senders may come",
      };
    case X509_V_ERR.CERT_REVOKED:
      return { message: `${whose} was revoked` };
    case X509_V_ERR.INVALID_PURPOSE:
      return {
        message: `${whose} is not for this end of a connection`,
        hint: role === "sender" ? "the receiver needs a server's" : "a sender needs a client's",
      };
    case X509_V_ERR.UNABLE_TO_GET_CRL:
      return { message: `${whose}: ca-crl.pem is not of its authority` };
    case X509_V_ERR.UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR.UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR.UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR.DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR.SELF_SIGNED_CERT_IN_CHAIN:
      return {
        message: `${whose} is not from our authority (${verifiedText})`,
        hint: "both ends' ca-cert.pem has to be the authority of both certificates",
      };
    default:
      return { message: `${whose} is not accepted: ${verifiedText}` };
  }
}

/** The peer has refused us in an alert. */
function refusedByPeer(seen: SeenFailure, peer: string, alert: number): FailureWords {
  const { by, identity, inHandshake } = seen;
  const ours = `${peer} refuses our certificate`;
  switch (alert) {
    case ALERT.CERTIFICATE_EXPIRED:
      return { message: `${ours}: it has expired, or is not yet valid` };
    case ALERT.CERTIFICATE_REVOKED:
      return { message: `${ours}: it was revoked` };
    case ALERT.UNKNOWN_CA:
      return { message: `${ours}: it is not from its authority`, hint: SAME_CREDENTIALS };
    case ALERT.BAD_CERTIFICATE:
    case ALERT.UNSUPPORTED_CERTIFICATE:
    case ALERT.CERTIFICATE_UNKNOWN:
      return {
        message: `${ours} (${seen.text})`,
        hint: "its log says why; --tls-name there says which names it lets in",
      };
    case ALERT.CERTIFICATE_REQUIRED:
      return { message: `${peer} wants a certificate`, hint: SAME_CREDENTIALS };
    case ALERT.PROTOCOL_VERSION:
      return { message: `${peer} speaks no TLS 1.3`, hint: "only TLS 1.3 is spoken" };
  }
  const keyHint = seen.isSessionKey ? ONE_SESSION : SAME_FILE;
  if (!inHandshake) return { message: `${peer} ended the connection: ${seen.text}` };
  if (by === "key" && (alert === ALERT.HANDSHAKE_FAILURE || alert === ALERT.UNKNOWN_PSK_IDENTITY)) {
    return { message: `${peer} knows no key "${identity}"`, hint: keyHint };
  }
  if (by === "key" && (alert === ALERT.ILLEGAL_PARAMETER || alert === ALERT.DECRYPT_ERROR)) {
    return { message: `${peer}'s key "${identity}" is another one`, hint: keyHint };
  }
  return { message: `${peer} refuses us: ${seen.text}`, hint: SAME_CREDENTIALS };
}
