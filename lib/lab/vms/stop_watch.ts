import { KemariError } from "../../errors.ts";
import { QmpClient } from "../../host/vm/qmp_client.ts";

/** One time that the guest stood still, on the host's clock. */
interface Stop {
  /** ms since the epoch, as QEMU says it. */
  readonly atMs: number;
  readonly durationMs: number;
}

/**
 * Notes how long QEMU's guest stands still, by QEMU's own STOP and RESUME.
 *
 * The guest itself cannot tell: its clocks stand still with it.
 */
export class StopWatch implements AsyncDisposable {
  readonly #stops: Stop[] = [];
  #stoppedAt: number | undefined;
  /** Called at each RESUME. */
  onResume: () => unknown = () => {};

  private constructor(readonly client: QmpClient) {
    void this.#listen();
  }

  static async attach(qmpPath: string): Promise<StopWatch> {
    return new StopWatch(await QmpClient.connect(qmpPath));
  }

  /** How many stops have ended since it was attached. */
  get count(): number {
    return this.#stops.length;
  }

  /**
   * From now on asks QEMU for its next checkpoint whenever one is over: a request that comes during
   * one is lost now and then, and many of them fight with it for QEMU's main loop.
   *
   * @param delayMs After so long QEMU's timer asks, if a request was lost all the same.
   */
  askBackToBack(delayMs: number): void {
    const ask = () =>
      this.client.execute("migrate-set-parameters", { "x-checkpoint-delay": delayMs })
        .catch((error) => {
          // The VM has been ended.
          if (!(error instanceof KemariError)) throw error;
        });
    this.onResume = ask;
    void ask();
  }

  /** The stops that ended between two moments, ms since the epoch. */
  between(fromMs: number, toMs: number): Stop[] {
    return this.#stops.filter(({ atMs, durationMs }) =>
      atMs + durationMs >= fromMs && atMs + durationMs < toMs
    );
  }

  /** Share of the time between two moments in which the guest stood still. */
  stoppedShare(fromMs: number, toMs: number): number {
    let stoppedMs = 0;
    for (const { atMs, durationMs } of this.#stops) {
      stoppedMs += Math.max(0, Math.min(toMs, atMs + durationMs) - Math.max(fromMs, atMs));
    }
    return stoppedMs / (toMs - fromMs);
  }

  async #listen(): Promise<void> {
    for await (const { name, timestampMs } of this.client.events()) {
      if (timestampMs === undefined) continue;
      if (name === "STOP") this.#stoppedAt = timestampMs;
      else if (name === "RESUME" && this.#stoppedAt !== undefined) {
        this.#stops.push({ atMs: this.#stoppedAt, durationMs: timestampMs - this.#stoppedAt });
        this.#stoppedAt = undefined;
        this.onResume();
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client.close();
  }
}
