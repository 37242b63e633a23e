/** What a transaction must pass before it is committed and acknowledged. */
import type { LoadableState } from "../../replica/secondary/compose_replica.ts";

/**
 * Holds transactions back: {@link mustHold}, then {@link check}, then {@link settle} if that passed.
 * {@link abandon} may come in the middle of a check, which then fails soon.
 */
export interface CommitGate {
  /** Asked when a transaction is complete. Cheap where nothing has changed. */
  mustHold(state: LoadableState): boolean;
  /** @throws {KemariError} why it is not to be committed. */
  check(state: LoadableState): Promise<void>;
  /** A check has passed. @param isCommitted Whether the transaction was committed upon it. */
  settle(isCommitted: boolean): void;
  /** Nobody waits for the check any more. */
  abandon(): void;
}
