/** The checks of transactions before their commit, one after another. */
import { getLogger } from "@logtape/logtape";
import { afterFailedCheck } from "../../decisions/failed_check.ts";
import { KemariError } from "../../errors.ts";
import type { LoadableState } from "../../replica/secondary/compose_replica.ts";
import type { Replica } from "../../replica/secondary/replica.ts";
import type { CommitGate } from "./commit_gate.ts";
import type { Reactor } from "../system/reactor.ts";
import type { ReceiverSession } from "./receiver_session.ts";

const log = getLogger(["kemari", "recv"]);

/** Carries out what a {@link CommitGate} and `afterFailedCheck` decide, over all sessions. */
export class CommitChecks {
  readonly #reactor: Reactor;
  readonly #replica: Replica;
  readonly #gate: CommitGate;
  readonly #onMisfit: () => void;
  /** The session whose transaction is being checked. */
  #session: ReceiverSession | undefined;
  /** Resolves when all checks so far are over: that of a lost session may still be ending. */
  #last: Promise<void> = Promise.resolve();

  /** @param onMisfit Called when this process is about to end: the reactor fails in a moment. */
  constructor(reactor: Reactor, replica: Replica, gate: CommitGate, onMisfit: () => void) {
    this.#reactor = reactor;
    this.#replica = replica;
    this.#gate = gate;
    this.#onMisfit = onMisfit;
  }

  /** A session's transaction is held. */
  check(session: ReceiverSession, state: LoadableState): void {
    const done = this.#reactor.awaitRuntime();
    this.#last = this.#last.then(() => this.#check(session, state))
      .catch((error) => this.#reactor.fail(error))
      .finally(() => {
        done();
        this.#reactor.wake();
      });
  }

  /** A session is over: nobody waits for its check. To be called before the session is closed. */
  leave(session: ReceiverSession | undefined): void {
    if (session !== undefined && session === this.#session) this.#gate.abandon();
  }

  async #check(session: ReceiverSession, state: LoadableState): Promise<void> {
    const isThere = () => session.secondary.awaitsCheck;
    if (!isThere()) return;
    const before = this.#replica.committed;
    this.#session = session;
    try {
      await this.#gate.check(state);
    } catch (error) {
      if (!(error instanceof KemariError)) throw error;
      return this.#refuse(session, error, isThere());
    } finally {
      this.#session = undefined;
    }
    if (isThere()) session.confirm();
    this.#gate.settle(this.#replica.committed > before);
  }

  #refuse(session: ReceiverSession, error: KemariError, isThere: boolean): void {
    const step = afterFailedCheck({
      isThere,
      isRoom: error.party === "replica",
      committed: this.#replica.committed,
    });
    if (step === "nothing") {
      log.info("the check has ended: {reason}", { reason: error.message });
      return;
    }
    if (step === "end") {
      this.#onMisfit();
      // The refusal has to be sent before the loop ends.
      this.#reactor.after(50, () => this.#reactor.fail(error));
    }
    session.fail(error);
  }
}
