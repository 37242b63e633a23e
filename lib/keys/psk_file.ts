/**
 * Files of pre-shared keys, as QEMU (`tls-creds-psk`), libvirt and GnuTLS' `psktool` have them: a
 * line `identity:key` for each, the key in hexadecimal.
 */
import { TransportError } from "../errors.ts";

/** One key, and the name that a sender says it by. */
export interface PresharedKey {
  readonly identity: string;
  readonly key: Uint8Array;
}

/** The bytes of a key that we make: as many as the strongest hash in use can take in. */
export const NEW_KEY_BYTES = 32;

/** Shorter keys can be guessed; longer ones no TLS library takes. */
const KEY_BYTES = { least: 16, most: 256 };
/** OpenSSL's limit for what a client says. */
export const MAX_IDENTITY_BYTES = 128;
/** What a file may hold. */
const MAX_KEYS = 1000;

/**
 * Reads a file's text.
 *
 * Empty lines, and lines that begin with `#`, are passed over.
 *
 * ```ts
 * import assert from "node:assert/strict";
 * const [first] = parsePskFile("vm1:000102030405060708090a0b0c0d0e0f\n", "keys.psk");
 * assert.deepEqual([first.identity, first.key.length], ["vm1", 16]);
 * ```
 *
 * @param path The file, for messages; these name lines, and never show a key.
 * @returns At least one key, in the file's order.
 * @throws {TransportError} It is no such file.
 */
export function parsePskFile(text: string, path: string): readonly PresharedKey[] {
  const keys: PresharedKey[] = [];
  for (const [i, line] of text.split(/\r?\n/).entries()) {
    if (line.trim() === "" || line.startsWith("#")) continue;
    const fail = (what: string): never => {
      throw new TransportError(path, "read", `line ${i + 1}: ${what}`, {
        party: "user",
        hint: "a line is IDENTITY:KEY, the key in hexadecimal; kemari keygen makes such a file",
      });
    };
    const colon = line.lastIndexOf(":");
    const identity = line.slice(0, Math.max(0, colon));
    if (!isIdentity(identity)) fail("no identity stands before a colon");
    const hex = line.slice(colon + 1).trim();
    if (!/^([0-9a-f]{2})+$/i.test(hex)) fail("the key is not in hexadecimal");
    const length = hex.length / 2;
    if (length < KEY_BYTES.least || length > KEY_BYTES.most) {
      fail(`a key of ${length} bytes; it must have ${KEY_BYTES.least} to ${KEY_BYTES.most}`);
    }
    if (keys.some((other) => other.identity === identity)) {
      fail(`a second key for "${identity}"`);
    }
    if (keys.length === MAX_KEYS) fail(`more than ${MAX_KEYS} keys`);
    keys.push({ identity, key: Uint8Array.from(hex.match(/../g)!, (byte) => parseInt(byte, 16)) });
  }
  if (keys.length > 0) return keys;
  throw new TransportError(path, "read", "it holds no key", {
    party: "user",
    hint: "kemari keygen makes a file with one",
  });
}

/** Writes a key as a line of such a file. */
export function formatPsk({ identity, key }: PresharedKey): string {
  return `${identity}:${[...key].map((byte) => byte.toString(16).padStart(2, "0")).join("")}\n`;
}

/** Whether a text may name a key: something printable without colons, that is no comment's begin. */
export function isIdentity(text: string): boolean {
  return /^[^\p{C}\p{Z}:#][^\p{C}\p{Zl}\p{Zp}:]*$/u.test(text) &&
    new TextEncoder().encode(text).length <= MAX_IDENTITY_BYTES;
}
