/** The order of TLS 1.3's ciphers for a host. */

/** Both use SHA-256, to which a pre-shared key is bound. */
const AES = "TLS_AES_128_GCM_SHA256";
const CHACHA = "TLS_CHACHA20_POLY1305_SHA256";

/**
 * AES if the processor has instructions for it and for GCM's multiplication (AES is then four times
 * as fast as ChaCha20), else ChaCha20. The receiver's order counts, unless the sender prefers
 * ChaCha20: then one of them has no such instructions.
 *
 * @param cpuInfo The text of /proc/cpuinfo.
 */
export function tlsCiphers(cpuInfo: string): string {
  const flags = new Set(/^(?:flags|Features)\s*:(.*)$/m.exec(cpuInfo)?.[1].trim().split(/\s+/));
  const hasAes = flags.has("aes") && (flags.has("pclmulqdq") || flags.has("pmull"));
  return (hasAes ? [AES, CHACHA] : [CHACHA, AES]).join(":");
}
