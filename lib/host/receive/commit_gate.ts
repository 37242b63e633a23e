/** A check that a transaction must pass before it is committed and acknowledged. */
import type { LoadableState } from "../../replica/secondary/compose_replica.ts";

/**
 * Holds transactions back: {@link mustHold}, then {@link check}, then {@link settle} if that
 * passed. {@link abandon} may come in the middle of a check, which then fails soon.
 */
export interface CommitGate {
  /** Called when a transaction is complete: whether to hold it. Cheap if nothing has changed. */
  mustHold(state: LoadableState): boolean;
  /** @throws {KemariError} why the transaction is not to be committed. */
  check(state: LoadableState): Promise<void>;
  /** A check has passed. @param isCommitted Whether the transaction was committed. */
  settle(isCommitted: boolean): void;
  /** Nobody waits for the check any more. */
  abandon(): void;
}
