/** Lines that a guest prints, with the time at which each arrived. */

import { TransportError } from "../../errors.ts";

/** One line of a guest's console. */
interface ConsoleLine {
  readonly text: string;
  /** Milliseconds since the epoch, with a fraction. */
  readonly atMs: number;
}

/** Now, in the clock of `ConsoleLine.atMs`. */
export function nowMs(): number {
  return performance.timeOrigin + performance.now();
}

/** Collects lines from a byte stream and wakes whoever waits for one. */
export class GuestConsole {
  /** All lines so far; only ever grows. */
  readonly lines: ConsoleLine[] = [];
  private partial = "";
  private ended = false;
  private waiters: (() => void)[] = [];
  private readonly decoder = new TextDecoder();

  constructor(private readonly name: string) {}

  /** Takes bytes as they arrive. */
  receive(bytes: Uint8Array): void {
    const atMs = nowMs();
    const parts = (this.partial + this.decoder.decode(bytes, { stream: true })).split("\n");
    this.partial = parts.pop()!;
    for (const part of parts) this.lines.push({ text: part.replace(/\r+$/, ""), atMs });
    if (parts.length > 0) this.wake();
  }

  /** Says that nothing more will come. */
  end(): void {
    this.ended = true;
    this.wake();
  }

  /** Every line from number `from` on, as it comes; ends when the guest does. */
  async *follow(from = 0): AsyncGenerator<ConsoleLine> {
    for (let next = from;;) {
      while (next < this.lines.length) yield this.lines[next++];
      if (this.ended) return;
      await new Promise<void>((resolve) => this.waiters.push(resolve));
    }
  }

  /**
   * Waits for a line that `wanted` accepts, beginning with line number `from`.
   *
   * @throws {TransportError} After `timeoutMs`, or when the guest ended; both quote the last lines.
   */
  async waitFor(
    wanted: RegExp | ((line: ConsoleLine) => boolean),
    options: { readonly timeoutMs?: number; readonly from?: number } = {},
  ): Promise<ConsoleLine> {
    const accepts = wanted instanceof RegExp
      ? (line: ConsoleLine) => wanted.test(line.text)
      : wanted;
    const timeoutMs = options.timeoutMs ?? 60_000;
    const deadlineMs = nowMs() + timeoutMs;
    let next = options.from ?? 0;
    while (true) {
      for (; next < this.lines.length; next++) {
        if (accepts(this.lines[next])) return this.lines[next];
      }
      const leftMs = deadlineMs - nowMs();
      if (this.ended || leftMs <= 0) {
        throw new TransportError(
          this.name,
          "read",
          `the guest ${
            this.ended ? "ended" : `was silent for ${timeoutMs} ms`
          } without the line wanted; its last words: ${this.lastWords}`,
        );
      }
      await this.change(leftMs);
    }
  }

  /** For messages. */
  get lastWords(): string {
    return this.lines.slice(-5).map((line) => line.text).concat(this.partial).join(" | ");
  }

  private async change(timeoutMs: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    await new Promise<void>((resolve) => {
      this.waiters.push(resolve);
      timer = setTimeout(resolve, timeoutMs);
    });
    clearTimeout(timer);
  }

  private wake(): void {
    const waiters = this.waiters;
    this.waiters = [];
    for (const waiter of waiters) waiter();
  }
}

/** The numbers that a guest has said, in lines of their own: `count 1`. */
export function countsOf(console: GuestConsole): number[] {
  return console.lines.flatMap(({ text }) => {
    const found = /^count (\d+)$/.exec(text.trim());
    return found === null ? [] : [Number(found[1])];
  });
}
