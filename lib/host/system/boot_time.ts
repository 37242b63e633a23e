import { libc } from "./libc.ts";

const CLOCK_BOOTTIME = 7;
/** `struct timespec` of a 64-bit system: seconds, nanoseconds. */
const timespec = new BigInt64Array(2);
const bytes = new Uint8Array(timespec.buffer);

/**
 * Milliseconds since this machine was started, time in suspend included: performance.now() stands
 * still while the machine is suspended, and other machines wait meanwhile.
 *
 * @see clock_gettime(2), CLOCK_BOOTTIME
 */
export function bootTimeMs(): number {
  libc().clock_gettime(CLOCK_BOOTTIME, bytes);
  return Number(timespec[0]) * 1000 + Number(timespec[1]) / 1e6;
}
