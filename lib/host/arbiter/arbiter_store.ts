import type { Answer, Ask } from "../../arbiter/claim.ts";

/**
 * The store of the register. Requests may be repeated: a repeated swap has the effect of one.
 *
 * No method throws because of the store's behaviour: that is an {@link Answer}; an answer that
 * cannot be understood counts as none (`unknown`).
 */
export interface ArbiterStore {
  /** As the user wrote it, for messages. */
  readonly name: string;
  /**
   * Sends a request, and waits for the answer for a few seconds.
   *
   * @throws the signal's reason; the request may be carried out nevertheless.
   */
  ask(ask: Ask, signal: AbortSignal): Promise<Answer>;
  /** Closes the store's connections. */
  close(): void;
}
