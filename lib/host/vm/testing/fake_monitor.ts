/** For tests: a QMP monitor without a VM behind it. */

const VERSION = { qemu: { major: 11, minor: 1, micro: 3 }, package: "" };

/** Serves one client at a time, as QEMU does, and knows whether its VM runs. */
export class FakeMonitor implements AsyncDisposable {
  /** The commands of all clients. */
  readonly heard: string[] = [];
  readonly #listener: Deno.Listener;
  #client: Deno.Conn | undefined;
  /** `query-status`'s word. */
  runState = "running";
  /** Milliseconds between two checkpoints. */
  delayMs = 100;
  /** Called when the VM has been stopped, before the command is answered. */
  onStopped: () => void = () => {};

  private constructor(readonly path: string) {
    this.#listener = Deno.listen({ transport: "unix", path });
    void this.#accept();
  }

  static open(path: string): FakeMonitor {
    return new FakeMonitor(path);
  }

  get isRunning(): boolean {
    return this.runState === "running";
  }

  /** Whether there is a client. */
  get isWatched(): boolean {
    return this.#client !== undefined;
  }

  /** The VM runs, by an operator at another monitor, or because it has arrived. */
  async resume(): Promise<void> {
    this.resumeUnheard();
    if (this.#client !== undefined) await event(this.#client, "RESUME");
  }

  /** The same, of which no client hears. */
  resumeUnheard(): void {
    this.runState = "running";
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    try {
      this.#client?.close();
    } catch {
      // The client has gone.
    }
    return Promise.resolve();
  }

  async #accept(): Promise<void> {
    try {
      for (;;) {
        const client = this.#client = await this.#listener.accept();
        await this.#serve(client).catch(() => {});
        this.#client = undefined;
      }
    } catch {
      // The monitor was disposed of.
    }
  }

  async #serve(client: Deno.Conn): Promise<void> {
    await say(client, { QMP: { version: VERSION, capabilities: [] } });
    let text = "";
    for await (const piece of client.readable.pipeThrough(new TextDecoderStream())) {
      const lines = (text + piece).split("\n");
      text = lines.pop()!;
      for (const line of lines) {
        const { execute, arguments: asked = {}, id } = JSON.parse(line);
        await say(client, { return: await this.#answer(execute, asked, client), id });
      }
    }
  }

  async #answer(
    command: string,
    asked: Readonly<Record<string, unknown>>,
    client: Deno.Conn,
  ): Promise<unknown> {
    if (command === "query-status") return { status: this.runState, running: this.isRunning };
    this.heard.push(command);
    switch (command) {
      case "query-version":
        return VERSION;
      case "query-migrate-capabilities":
        return ["x-colo", "return-path"].map((capability) => ({ capability, state: false }));
      case "query-migrate-parameters":
        return { "x-checkpoint-delay": this.delayMs };
      case "migrate-set-parameters":
        this.delayMs = Number(asked["x-checkpoint-delay"]);
        break;
      case "stop":
        if (!this.isRunning) break;
        this.runState = "paused";
        await event(client, "STOP");
        this.onStopped();
    }
    return {};
  }
}

function event(client: Deno.Conn, name: string): Promise<void> {
  return say(client, { event: name, data: {}, timestamp: { seconds: 1, microseconds: 0 } });
}

async function say(client: Deno.Conn, message: object): Promise<void> {
  const bytes = new TextEncoder().encode(JSON.stringify(message) + "\r\n");
  for (let at = 0; at < bytes.length;) at += await client.write(bytes.subarray(at));
}
