/** The host's end of the guest's agent: commands in, results out, over a serial line. */

import { StateError, TransportError } from "../../errors.ts";
import { COMMAND_LIMIT } from "./init_script.ts";

/** What a command in the guest left. */
export interface GuestResult {
  readonly code: number;
  /** Stdout and stderr, in the order written. */
  readonly output: string;
}

/**
 * Encodes a command for the agent; see `init_script.ts` for the line's shape. The newline in
 * front ends whatever the line held before.
 *
 * @throws {StateError} If the command does not fit into the guest's line buffer.
 */
export function encodeCommand(id: string, command: string): Uint8Array<ArrayBuffer> {
  const code = btoa(String.fromCharCode(...new TextEncoder().encode(command)));
  if (code.length > COMMAND_LIMIT) {
    throw new StateError(`a guest command of ${command.length} characters is too long for its tty`);
  }
  return new TextEncoder().encode(`\nrun ${id} ${code.length} ${code}\n`);
}

interface Pending {
  readonly parts: string[];
  readonly resolve: (result: GuestResult) => void;
  readonly reject: (error: Error) => void;
}

/** Runs commands one after another; the guest's shell takes them in order. */
export class GuestAgent {
  private readonly pending = new Map<string, Pending>();
  private partial = "";
  private nextId = 1;
  private failure: TransportError | undefined;
  /** Ids of two hosts (before and after a failover) must differ. */
  private readonly prefix = Math.random().toString(36).slice(2, 8);

  /**
   * @param write Sends bytes to the guest; it must send all of them.
   * @param lastWords What the guest has said elsewhere: whether it lives, where it does not answer.
   */
  constructor(
    private readonly name: string,
    private readonly write: (bytes: Uint8Array) => Promise<void>,
    private readonly lastWords: () => string = () => "(nobody listens)",
  ) {}

  /**
   * Runs a shell command in the guest and waits for its end.
   *
   * @throws {TransportError} If the guest does not answer within `timeoutMs`, or is gone.
   */
  async run(command: string, options: { timeoutMs?: number } = {}): Promise<GuestResult> {
    if (this.failure) throw this.failure;
    const timeoutMs = options.timeoutMs ?? 60_000;
    const id = `${this.prefix}-${this.nextId++}`;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const answer = new Promise<GuestResult>((resolve, reject) => {
      this.pending.set(id, { parts: [], resolve, reject });
      timer = setTimeout(() => {
        reject(
          new TransportError(
            this.name,
            "read",
            `the guest did not finish within ${timeoutMs} ms: ${command.slice(0, 80)}` +
              `; its console's last words: ${this.lastWords()}`,
          ),
        );
      }, timeoutMs);
    });
    try {
      await Promise.all([this.write(encodeCommand(id, command)), answer]);
      return await answer;
    } finally {
      clearTimeout(timer);
      this.pending.delete(id);
    }
  }

  /** Takes bytes as they arrive. Lines that belong to no waiting command are ignored. */
  receive(bytes: Uint8Array): void {
    const lines = (this.partial + String.fromCharCode(...bytes)).split("\n");
    this.partial = lines.pop()!;
    for (const line of lines) {
      const [word, id, rest] = line.replace(/\r+$/, "").split(" ");
      const pending = this.pending.get(id);
      if (!pending) continue;
      if (word === "out") pending.parts.push(rest ?? "");
      if (word === "end") {
        const raw = atob(pending.parts.join(""));
        const output = new TextDecoder().decode(Uint8Array.from(raw, (c) => c.charCodeAt(0)));
        pending.resolve({ code: Number(rest), output });
      }
    }
  }

  /** Says that the guest is gone: every command that waits fails, and later ones too. */
  end(): void {
    this.failure = new TransportError(this.name, "read", "the guest is gone");
    for (const pending of this.pending.values()) pending.reject(this.failure);
  }
}
