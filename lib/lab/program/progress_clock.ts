import { formatWait } from "../../units.ts";

/** Tells how far an experiment is, and estimates what is left from what is behind. */
export class ProgressClock {
  #begunMs: number | undefined;

  /** @param prefix Which of several experiments it is. */
  constructor(readonly prefix = "", readonly now: () => number = () => performance.now()) {}

  /**
   * One line: `iozone: 3 of 20 (write), about 4 min left`. Before the second step is behind there
   * is nothing to estimate from: the first one often fetches and warms up.
   */
  tell(name: string, done: number, total: number, what: string): string {
    const left = this.left(done, total);
    return `${this.prefix}${name}: ${Math.min(done + 1, total)} of ${total} (${what})${left}`;
  }

  /** The end of such a line: `, about 4 min left`, or nothing with the first step. */
  left(done: number, total: number): string {
    this.#begunMs ??= this.now();
    if (done === 0) return "";
    const leftMs = (this.now() - this.#begunMs) / done * (total - done);
    return `, about ${formatWait(leftMs)} left`;
  }
}
