import type { Answer, Ask } from "../../arbiter/claim.ts";

/**
 * Where the register is kept. What is asked may be asked again: swapping twice is swapping once.
 *
 * Nothing here throws for what the store does or does not do: that is an {@link Answer}, and a store that
 * cannot be understood has not answered (`unknown`).
 */
export interface ArbiterStore {
  /** As the user wrote it, for messages. */
  readonly name: string;
  /**
   * Asks, and waits for the answer for a few seconds.
   *
   * @throws the signal's reason; what was asked for may be done all the same.
   */
  ask(ask: Ask, signal: AbortSignal): Promise<Answer>;
  /** Gives its connections back. */
  close(): void;
}
