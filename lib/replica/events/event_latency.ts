import { LatencyWindow } from "../latency_window.ts";
import type { EventLatencySummary } from "../../control/tap_status.ts";

interface Epoch {
  readonly transaction: number;
  readonly committedAt: number;
}

/** Measures how long the events of one class are held. Time is an argument. */
export class EventLatency {
  readonly #trigger = new LatencyWindow();
  readonly #commit = new LatencyWindow();
  readonly #release = new LatencyWindow();
  #firstAt: number | undefined;
  #triggeredAt: number | undefined;
  #closed: { readonly transaction: number; readonly triggeredAt: number }[] = [];
  #committed: Epoch[] = [];

  /** An event is held. */
  held(nowMs: number): void {
    this.#firstAt ??= nowMs;
  }

  /** A synchronization has been asked for, or has begun without a request. */
  triggered(nowMs: number): void {
    if (this.#firstAt !== undefined) this.#triggeredAt ??= nowMs;
  }

  /** The open epoch ends with this transaction. */
  closed(transaction: number, nowMs: number): void {
    if (this.#firstAt === undefined) return;
    const triggeredAt = this.#triggeredAt ?? nowMs;
    this.#trigger.add(triggeredAt - this.#firstAt);
    this.#closed.push({ transaction, triggeredAt });
    this.#firstAt = this.#triggeredAt = undefined;
  }

  /** The secondary has this transaction and all before it. */
  committed(transaction: number, nowMs: number): void {
    while (this.#closed.length > 0 && this.#closed[0].transaction <= transaction) {
      const epoch = this.#closed.shift()!;
      this.#commit.add(nowMs - epoch.triggeredAt);
      this.#committed.push({ transaction: epoch.transaction, committedAt: nowMs });
    }
  }

  /** Everything held for this transaction and all before it has left. */
  released(transaction: number, nowMs: number): void {
    while (this.#committed.length > 0 && this.#committed[0].transaction <= transaction) {
      this.#release.add(nowMs - this.#committed.shift()!.committedAt);
    }
  }

  /** The secondary is lost: what is held now will not be committed. */
  reset(): void {
    this.#firstAt = this.#triggeredAt = undefined;
    this.#closed = [];
    this.#committed = [];
  }

  summary(): EventLatencySummary {
    return {
      trigger: this.#trigger.summary(),
      commit: this.#commit.summary(),
      release: this.#release.summary(),
    };
  }
}
