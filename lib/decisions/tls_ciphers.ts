/** Which of TLS 1.3's ciphers a host prefers. */

/** Both take SHA-256, which a pre-shared key is bound to. */
const AES = "TLS_AES_128_GCM_SHA256";
const CHACHA = "TLS_CHACHA20_POLY1305_SHA256";

/**
 * AES where the processor has instructions for it and for GCM's multiplication (four times as fast
 * there as ChaCha20), else ChaCha20. The receiver's order counts, unless the sender prefers ChaCha20:
 * then one of them has no such instructions.
 *
 * @param cpuInfo /proc/cpuinfo.
 */
export function tlsCiphers(cpuInfo: string): string {
  const flags = new Set(/^(?:flags|Features)\s*:(.*)$/m.exec(cpuInfo)?.[1].trim().split(/\s+/));
  const hasAes = flags.has("aes") && (flags.has("pclmulqdq") || flags.has("pmull"));
  return (hasAes ? [AES, CHACHA] : [CHACHA, AES]).join(":");
}
