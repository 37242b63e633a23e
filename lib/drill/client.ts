/** The drill's client, outside of the guest: one TCP connection, one numbered message at a time. */
import { TransportError } from "../errors.ts";
import { selfCommand } from "../host/system/self_command.ts";
import type { NetLab } from "../lab/network/net_lab.ts";
import { kill } from "../lab/program/lab_process.ts";

/** The client's process, and the answers that it got. */
export class DrillClient implements AsyncDisposable {
  readonly acked: { readonly n: number; readonly atMs: number }[] = [];
  error: string | undefined;
  readonly #process: Deno.ChildProcess;
  readonly #reading: Promise<void>;
  #stopped = false;

  /**
   * Connects to the guest's service.
   *
   * @param kemari The words that start kemari; this very program by default.
   */
  constructor(lab: NetLab, port: number, kemari?: readonly string[]) {
    const words = ["drill-client", lab.guestIp, `${port}`];
    const [program, ...args] = [
      ...lab.prefix("client"),
      ...(kemari === undefined ? selfCommand(words) : [...kemari, ...words]),
    ];
    this.#process = new Deno.Command(program, {
      args,
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#reading = this.#read();
  }

  /** The last number that was acknowledged. */
  get last(): number {
    return this.acked.at(-1)?.n ?? 0;
  }

  /** Lets the client end after the answer that it waits for. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#process.stdin.close().catch(() => {});
    await this.#process.status;
    await this.#reading;
  }

  /** Longest time between two answers, of which the second came after `sinceMs`. */
  longestGapMs(sinceMs: number): number {
    let longest = 0;
    for (let i = 1; i < this.acked.length; i++) {
      if (this.acked[i].atMs < sinceMs) continue;
      longest = Math.max(longest, this.acked[i].atMs - this.acked[i - 1].atMs);
    }
    return longest;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#stopped) kill(this.#process.pid);
    await this.#process.status;
    await this.#reading;
  }

  async #read(): Promise<void> {
    let text = "";
    for await (const part of this.#process.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (text + part).split("\n");
      text = lines.pop()!;
      for (const line of lines) {
        const { acked, atMs, error } = JSON.parse(line);
        if (acked !== undefined) this.acked.push({ n: acked, atMs });
        else if (error !== undefined) this.error = error;
      }
    }
  }
}

/** The client itself: `kemari drill-client HOST PORT`, inside its namespace. */
export async function runClient(
  hostname: string,
  port: number,
  say: (line: string) => void,
): Promise<void> {
  const encoder = new TextEncoder();
  let stopping = false;
  void (async () => {
    for await (const _ of Deno.stdin.readable);
    stopping = true;
  })();
  try {
    using connection = await Deno.connect({ hostname, port });
    connection.setNoDelay(true);
    const reader = connection.readable.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (let n = 1; !stopping; n++) {
      await connection.write(encoder.encode(`${n}\n`));
      while (!text.includes("\n")) {
        const { value, done } = await reader.read();
        if (done) throw new TransportError(hostname, "read", "the guest closed the connection");
        text += value;
      }
      const end = text.indexOf("\n");
      const answer = text.slice(0, end);
      text = text.slice(end + 1);
      if (answer !== `ack ${n}`) {
        throw new TransportError(hostname, "read", `"${answer}" in answer to ${n}`);
      }
      say(JSON.stringify({ acked: n, atMs: Date.now() }) + "\n");
    }
  } catch (error) {
    say(JSON.stringify({ error: (error as Error).message }) + "\n");
  }
}
