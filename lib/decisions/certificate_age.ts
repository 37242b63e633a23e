/** Whether a certificate may be used, and whether to warn that it will expire. */

/** How long before a certificate's end to warn, in seconds. */
export const WARN_S = 30 * 24 * 3600;

export type CertificateAge = "not-yet-valid" | "good" | "ends-soon" | "expired";

/**
 * @param begunS Seconds since the certificate became valid; negative before that.
 * @param leftS Seconds until it expires; negative after that.
 */
export function certificateAge(begunS: number, leftS: number): CertificateAge {
  if (leftS < 0) return "expired";
  if (begunS < 0) return "not-yet-valid";
  return leftS < WARN_S ? "ends-soon" : "good";
}
