/**
 * Whether to have the kernel encrypt what is sent (kTLS), which saves a copy and a system call for
 * each record.
 */

/** The part of a version that matters. */
export type Version = readonly [major: number, minor: number];

/**
 * An AES key must not be used without limit (RFC 8446, section 5.5), and a protection lasts for
 * months: so a connection renews its keys. A kernel before 6.14 cannot do that, and OpenSSL before
 * 3.2 does not tell the kernel: the peer could not read what comes after the renewal. With those,
 * OpenSSL encrypts.
 */
export function mayAskForKernelTls(kernel: Version, openssl: Version): boolean {
  return isAtLeast(kernel, [6, 14]) && isAtLeast(openssl, [3, 2]);
}

function isAtLeast([major, minor]: Version, [least, leastMinor]: Version): boolean {
  return major > least || major === least && minor >= leastMinor;
}

/** Reads the output of `uname -r`; `[0, 0]` if it is not a version. */
export function kernelVersion(release: string): Version {
  const parts = /^(\d+)\.(\d+)/.exec(release);
  return parts === null ? [0, 0] : [Number(parts[1]), Number(parts[2])];
}
