import type { PresharedKey } from "./psk_file.ts";

/** How long a session's key waits for its session, in milliseconds: a login has come by then. */
export const SESSION_KEY_LIFE_MS = 60_000;
/** Keys that wait at once: a sender needs one, and one more if its connection breaks at once. */
export const MOST_SESSION_KEYS = 16;

/**
 * Keys that are good for one session each, and only for a while; a receiver's, of senders that come by
 * ssh.
 *
 * Times are milliseconds of any clock that does not go back.
 */
export class SessionKeys {
  /** The oldest first. */
  readonly #waiting = new Map<string, { readonly key: PresharedKey; readonly untilMs: number }>();

  /** Keys that wait for their session. */
  count(nowMs: number): number {
    this.#forgetOld(nowMs);
    return this.#waiting.size;
  }

  /**
   * @param key Its bytes are this object's from now on.
   * @returns Whether there was room, and nobody else had this name.
   */
  add(key: PresharedKey, nowMs: number): boolean {
    if (this.count(nowMs) >= MOST_SESSION_KEYS || this.#waiting.has(key.identity)) return false;
    this.#waiting.set(key.identity, { key, untilMs: nowMs + SESSION_KEY_LIFE_MS });
    return true;
  }

  /** The key of this name, if it still waits; its bytes are not to be kept. */
  find(identity: string, nowMs: number): PresharedKey | undefined {
    this.#forgetOld(nowMs);
    return this.#waiting.get(identity)?.key;
  }

  /** A sender has proven to have this key: no other connection can. */
  use(identity: string): void {
    this.#forget(identity);
  }

  #forgetOld(nowMs: number): void {
    for (const [identity, { untilMs }] of this.#waiting) {
      if (untilMs <= nowMs) this.#forget(identity);
    }
  }

  #forget(identity: string): void {
    this.#waiting.get(identity)?.key.key.fill(0);
    this.#waiting.delete(identity);
  }
}
