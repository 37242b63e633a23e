/** How long each part of a takeover took. */
import type { TakeoverStatus } from "../../control/receiver_status.ts";
import type { TakeoverCause } from "../../decisions/takeover_plan.ts";

/** The phases of one takeover, in order. */
type TakeoverPhase = "fenced" | "applied" | "loaded" | "running" | "firstPacket";

/** Notes when each phase of a takeover was over. */
export class TakeoverClock {
  readonly #detectedAt: number;
  readonly #wallClock: string;
  readonly #at = new Map<TakeoverPhase, number>();
  mode: TakeoverStatus["mode"] = null;
  /** Whether a cold QEMU has everything to run the VM, and is not known to have failed. */
  isGiven = false;

  /** @param detectedAt Milliseconds of performance.now(). */
  constructor(
    readonly cause: TakeoverCause,
    readonly transaction: number,
    detectedAt: number,
  ) {
    this.#detectedAt = detectedAt;
    this.#wallClock = new Date(performance.timeOrigin + detectedAt).toISOString();
  }

  /**
   * @param at Milliseconds of performance.now(); now by default. Only the first call for a phase
   * counts.
   */
  over(phase: TakeoverPhase, at = performance.now()): void {
    if (!this.#at.has(phase)) this.#at.set(phase, at);
  }

  /** Forgets phases that will be repeated. */
  again(...phases: readonly TakeoverPhase[]): void {
    for (const phase of phases) this.#at.delete(phase);
  }

  /** Whether the fence, if there is one, has done its work for this try. */
  get isFenced(): boolean {
    return this.#at.has("fenced");
  }

  /** The takeover's times, in milliseconds since the decision. */
  get ageMs(): number {
    return performance.now() - this.#detectedAt;
  }

  get status(): TakeoverStatus {
    const since = (phase: TakeoverPhase) => {
      const at = this.#at.get(phase);
      return at === undefined ? null : at - this.#detectedAt;
    };
    return {
      cause: this.cause,
      detectedAt: this.#wallClock,
      transaction: this.transaction,
      mode: this.mode,
      fencedMs: since("fenced"),
      appliedMs: since("applied"),
      loadedMs: since("loaded"),
      runningMs: since("running"),
      firstPacketMs: since("firstPacket"),
    };
  }
}

/** One line with the phases that are over, each with its time since the decision. */
export function formatTakeover(status: TakeoverStatus): string {
  const parts = ([
    ["fenced", status.fencedMs],
    ["applied", status.appliedMs],
    ["loaded", status.loadedMs],
    ["running", status.runningMs],
    ["first packet", status.firstPacketMs],
  ] as const).flatMap(([name, ms]) => ms === null ? [] : [`${name} ${formatMs(ms)}`]);
  const mode = status.mode === null ? "" : `${status.mode}, `;
  return `${mode}after ${status.cause}: ${parts.join(", ")} ms`;
}

function formatMs(ms: number): string {
  return ms.toFixed(ms < 10 ? 1 : 0);
}
