/** Whether a certificate may be used, and whether somebody should hear that this will end. */

/** How long before its end a certificate is warned of, in seconds. */
export const WARN_S = 30 * 24 * 3600;

export type CertificateAge = "not-yet-valid" | "good" | "ends-soon" | "expired";

/**
 * @param begunS Seconds since its first moment; negative before that.
 * @param leftS Seconds until its last one; negative behind that.
 */
export function certificateAge(begunS: number, leftS: number): CertificateAge {
  if (leftS < 0) return "expired";
  if (begunS < 0) return "not-yet-valid";
  return leftS < WARN_S ? "ends-soon" : "good";
}
