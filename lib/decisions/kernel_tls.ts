/** Whether the kernel is asked to encrypt what is sent: kTLS, which saves a copy and the system call a record. */

/** A version as far as it matters. */
export type Version = readonly [major: number, minor: number];

/**
 * An AES key must not encrypt without end (RFC 8446, section 5.5), and a protection lasts for months:
 * a connection renews its keys. A kernel before 6.14 cannot, and OpenSSL before 3.2 does not tell it:
 * what came after the renewal could not be read. So these encrypt in OpenSSL.
 */
export function mayAskForKernelTls(kernel: Version, openssl: Version): boolean {
  return isAtLeast(kernel, [6, 14]) && isAtLeast(openssl, [3, 2]);
}

function isAtLeast([major, minor]: Version, [least, leastMinor]: Version): boolean {
  return major > least || major === least && minor >= leastMinor;
}

/** Reads what `uname -r` says; `[0, 0]` for what is none. */
export function kernelVersion(release: string): Version {
  const parts = /^(\d+)\.(\d+)/.exec(release);
  return parts === null ? [0, 0] : [Number(parts[1]), Number(parts[2])];
}
