/** OpenSSL's constants, by its own names; see its `ssl.h`, `x509_vfy.h` and `bio.h`. */

export const TLS1_3_VERSION = 0x0304n;

/** Commands of `SSL_CTX_ctrl` and `SSL_ctrl`. */
export const SSL_CTRL = {
  MODE: 33,
  SET_READ_AHEAD: 41,
  SET_SESS_CACHE_MODE: 44,
  SET_TLSEXT_HOSTNAME: 55,
  CLEAR_MODE: 78,
  SET_MIN_PROTO_VERSION: 123,
  SET_MAX_PROTO_VERSION: 124,
} as const;

export const SSL_MODE_ENABLE_PARTIAL_WRITE = 1n;
export const SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER = 2n;
export const SSL_MODE_AUTO_RETRY = 4n;

export const SSL_OP = {
  ENABLE_KTLS: 1n << 3n,
  NO_TICKET: 1n << 14n,
  NO_COMPRESSION: 1n << 17n,
  PRIORITIZE_CHACHA: 1n << 21n,
  CIPHER_SERVER_PREFERENCE: 1n << 22n,
  NO_RENEGOTIATION: 1n << 30n,
} as const;

export const SSL_VERIFY_PEER = 1;
export const SSL_VERIFY_FAIL_IF_NO_PEER_CERT = 2;
export const SSL_FILETYPE_PEM = 1;

/** Results of `SSL_get_error`. */
export const SSL_ERROR = {
  SSL: 1,
  WANT_READ: 2,
  WANT_WRITE: 3,
  SYSCALL: 5,
  ZERO_RETURN: 6,
} as const;

/** Argument of an info callback: a handshake message is being processed. */
export const SSL_CB_LOOP = 1;

export const SSL_KEY_UPDATE_NOT_REQUESTED = 0;

/** OpenSSL's own reasons; numbers of 1000 and more are alerts that the peer has sent. */
export const SSL_R = {
  CERTIFICATE_VERIFY_FAILED: 134,
  HTTPS_PROXY_REQUEST: 155,
  HTTP_REQUEST: 156,
  BAD_RECORD_TYPE: 443,
  NO_SHARED_CIPHER: 193,
  PACKET_LENGTH_TOO_LONG: 198,
  PEER_DID_NOT_RETURN_A_CERTIFICATE: 199,
  UNEXPECTED_MESSAGE: 244,
  UNEXPECTED_RECORD: 245,
  BINDER_DOES_NOT_VERIFY: 253,
  UNSUPPORTED_PROTOCOL: 258,
  WRONG_SSL_VERSION: 266,
  WRONG_VERSION_NUMBER: 267,
  DECRYPTION_FAILED_OR_BAD_RECORD_MAC: 281,
  UNEXPECTED_EOF_WHILE_READING: 294,
} as const;

/** The difference between an alert's reason and its number. */
export const SSL_AD_REASON_OFFSET = 1000;

/** The alerts that kemari distinguishes; RFC 8446, section 6. */
export const ALERT = {
  UNEXPECTED_MESSAGE: 10,
  BAD_RECORD_MAC: 20,
  HANDSHAKE_FAILURE: 40,
  BAD_CERTIFICATE: 42,
  UNSUPPORTED_CERTIFICATE: 43,
  CERTIFICATE_REVOKED: 44,
  CERTIFICATE_EXPIRED: 45,
  CERTIFICATE_UNKNOWN: 46,
  ILLEGAL_PARAMETER: 47,
  UNKNOWN_CA: 48,
  DECRYPT_ERROR: 51,
  PROTOCOL_VERSION: 70,
  UNKNOWN_PSK_IDENTITY: 115,
  CERTIFICATE_REQUIRED: 116,
} as const;

/** Errors of a certificate: OpenSSL's `X509_V_ERR_…`. */
export const X509_V_ERR = {
  UNABLE_TO_GET_ISSUER_CERT: 2,
  UNABLE_TO_GET_CRL: 3,
  CERT_NOT_YET_VALID: 9,
  CERT_HAS_EXPIRED: 10,
  DEPTH_ZERO_SELF_SIGNED_CERT: 18,
  SELF_SIGNED_CERT_IN_CHAIN: 19,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 20,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 21,
  CERT_REVOKED: 23,
  INVALID_PURPOSE: 26,
  HOSTNAME_MISMATCH: 62,
  IP_ADDRESS_MISMATCH: 64,
} as const;

export const X509_V_FLAG_CRL_CHECK = 4n;
export const X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS = 4;
/** Commands of `BIO_ctrl` and `BIO_int_ctrl`. */
export const BIO_CTRL = { FLUSH: 11, GET_KTLS_SEND: 73, SET_BUFF_SIZE: 117 } as const;
/** Of `SET_BUFF_SIZE`: what is written. */
export const BIO_WRITE_BUFFER = 1;
export const BIO_NOCLOSE = 0;
