/** The host's end of the bare guest's second serial port: one line asks, one line answers. */

import { TransportError } from "../../errors.ts";
import type { PortReader } from "../guest/guest_port.ts";

interface Waiting {
  resolve(answer: string): void;
  reject(error: Error): void;
}

/** Asks the bare guest; `guest.asm` has the commands. Answers that nobody waits for are ignored. */
export class BareAgent implements PortReader {
  readonly #waiting = new Map<string, Waiting>();
  #partial = "";
  #nextId = 1;
  #gone = false;
  /** An answer to what was asked of the primary may come from the secondary. */
  readonly #prefix = Math.random().toString(36).slice(2, 8);

  /**
   * @param write Sends bytes to the guest; it must send all of them.
   * @param lastWords What the guest has said elsewhere, for messages.
   */
  constructor(
    private readonly name: string,
    private readonly write: (bytes: Uint8Array) => Promise<void>,
    private readonly lastWords: () => string,
  ) {}

  /**
   * Asks, and waits for the answer without its id.
   *
   * @throws {TransportError} If there is none within `timeoutMs`, or the guest is gone.
   */
  async ask(command: string, timeoutMs = 20_000): Promise<string> {
    if (this.#gone) throw this.#failure("the guest is gone");
    const id = `${this.#prefix}-${this.#nextId++}`;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const answer = new Promise<string>((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      timer = setTimeout(
        () => reject(this.#failure(`no answer to "${command}" in ${timeoutMs} ms`)),
        timeoutMs,
      );
    });
    try {
      // The newline in front ends what another host has begun to ask.
      const line = new TextEncoder().encode(`\n${id} ${command}\n`);
      await Promise.all([this.write(line), answer]);
      return await answer;
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(id);
    }
  }

  receive(bytes: Uint8Array): void {
    const lines = (this.#partial + String.fromCharCode(...bytes)).split("\n");
    this.#partial = lines.pop()!;
    for (const line of lines) {
      const space = line.indexOf(" ");
      this.#waiting.get(line.slice(0, space))?.resolve(line.slice(space + 1));
    }
  }

  end(): void {
    this.#gone = true;
    for (const { reject } of this.#waiting.values()) reject(this.#failure("the guest is gone"));
  }

  #failure(what: string): TransportError {
    return new TransportError(
      this.name,
      "read",
      `${what}; its console's last words: ${this.lastWords()}`,
    );
  }
}

/** What the guest found when it looked at all of its memory. */
export interface Verification {
  readonly ok: boolean;
  /** Ticks counted so far. */
  readonly count: number;
  /** Eight hexadecimal digits: the running sum over the memory. */
  readonly sum: string;
  /** Eight hexadecimal digits that another boot does not have. */
  readonly boot: string;
  /** The answer as it was. */
  readonly text: string;
}

/** @throws {TransportError} If it is no such answer. */
export function decodeVerification(text: string): Verification {
  const found = /^verify (ok|BAD at=[0-9a-f]{8}) count=(\d+) sum=([0-9a-f]{8}) boot=([0-9a-f]{8})$/
    .exec(text);
  if (found === null) throw new TransportError("bare guest", "read", `not an answer: ${text}`);
  return { ok: found[1] === "ok", count: Number(found[2]), sum: found[3], boot: found[4], text };
}

/** The guest's settings and counters; `guest.asm` tells what they are. */
export interface BareStatus {
  readonly count: number;
  readonly interrupts: number;
  readonly ap: number;
  readonly running: number;
  readonly timer: string;
  readonly hz: number;
  readonly irq: string;
  readonly apic: string;
  readonly pages: number;
  readonly every: number;
  readonly region: number;
  readonly cpus: number;
  readonly aphz: number;
  readonly boot: string;
}

const TEXTS: ReadonlySet<string> = new Set(["timer", "irq", "apic", "boot"]);

/** @throws {TransportError} If it is no such answer. */
export function decodeStatus(text: string): BareStatus {
  const [first, ...words] = text.split(" ");
  if (first !== "status") throw new TransportError("bare guest", "read", `not an answer: ${text}`);
  const values = words.map((word): [string, string | number] => {
    const [name, value] = word.split("=");
    return [name, TEXTS.has(name) ? value : Number(value)];
  });
  return Object.fromEntries(values) as unknown as BareStatus;
}
