/** For tests: kemari as a script starts it, with its output watched while it runs. */
const MAIN = new URL("../../../main.ts", import.meta.url).pathname;

/** The words that start kemari from source. */
export const FROM_SOURCE: readonly string[] = [
  Deno.execPath(),
  "run",
  "-A",
  "--quiet",
  "--no-check",
  MAIN,
];

/** The same, as a shell wants them. */
export const FROM_SOURCE_WORDS = FROM_SOURCE.map((word) => `'${word}'`).join(" ");

export interface StartOptions {
  /** `piped`: see {@link KemariProcess.write}; a path: read from there. Default: nothing. */
  readonly stdin?: "piped" | { readonly path: string };
  /** A path: written there. Default: collected. */
  readonly stdout?: { readonly path: string };
  /** What to start; kemari from source by default. */
  readonly program?: readonly string[];
  /** Shell words that come first, such as `ulimit -f 8;`. */
  readonly before?: string;
}

/** How a process ended. */
interface Ended {
  readonly code: number;
  readonly signal: string | null;
  readonly stdout: Uint8Array;
  readonly stderr: string;
}

const LAST_WORDS_MS = 2000;
/** Long enough for a machine that does much else. */
const TIMEOUT_MS = 60_000;

/** A running kemari. Disposing of it kills it, if it still runs. */
export class KemariProcess implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #args: string;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>> | undefined;
  readonly #outputs: Promise<unknown>;
  readonly #status: Promise<Deno.CommandStatus>;
  #stdout: Uint8Array[] = [];
  #stdoutBytes = 0;
  #stderr = "";
  #ended = false;
  #waiters = new Set<() => void>();

  constructor(args: readonly string[], options: StartOptions = {}) {
    const { stdin, stdout, program = FROM_SOURCE, before = "" } = options;
    const redirections = (typeof stdin === "object" ? ` <'${stdin.path}'` : "") +
      (stdout === undefined ? "" : ` >'${stdout.path}'`);
    this.#args = args.join(" ");
    this.#child = new Deno.Command("/bin/sh", {
      args: ["-c", `${before} exec "$@"${redirections}`, "sh", ...program, ...args],
      stdin: stdin === "piped" ? "piped" : "null",
      stdout: "piped",
      stderr: "piped",
      env: { NO_COLOR: "1" },
    }).spawn();
    this.#writer = stdin === "piped" ? this.#child.stdin.getWriter() : undefined;
    // A reader that has gone shows at the next write.
    this.#writer?.closed.catch(() => {});
    this.#outputs = Promise.all([this.#readStdout(), this.#readStderr()]);
    this.#status = this.#child.status;
    this.#status.then(() => this.#notify(() => this.#ended = true));
  }

  get pid(): number {
    return this.#child.pid;
  }
  get stderr(): string {
    return this.#stderr;
  }
  /** Bytes of stdout so far. */
  get stdoutBytes(): number {
    return this.#stdoutBytes;
  }

  /** @throws {Error} with what it said, if it has ended. */
  signal(signal: Deno.Signal): void {
    try {
      this.#child.kill(signal);
    } catch {
      throw this.#failure(`had ended before ${signal}`);
    }
  }

  /** Writes to stdin; `false` if nobody reads there any more. */
  async write(bytes: Uint8Array): Promise<boolean> {
    try {
      await this.#writer!.write(bytes as Uint8Array<ArrayBuffer>);
      return true;
    } catch {
      return false;
    }
  }

  async closeStdin(): Promise<void> {
    await this.#writer!.close().catch(() => {});
  }

  /** Waits for stderr to contain this. */
  async waitFor(pattern: RegExp, timeoutMs = TIMEOUT_MS): Promise<RegExpExecArray> {
    let found: RegExpExecArray | null = null;
    await this.#until(
      () => (found = pattern.exec(this.#stderr)) !== null || this.#ended,
      timeoutMs,
      `${pattern} on stderr`,
    );
    if (found === null) throw this.#failure(`ended without ${pattern} on stderr`);
    return found;
  }

  /** Takes the next bytes of stdout, exactly so many. */
  async readStdout(count: number, timeoutMs = TIMEOUT_MS): Promise<Uint8Array> {
    const wanted = () => this.#stdout.reduce((sum, part) => sum + part.length, 0) >= count;
    await this.#until(() => wanted() || this.#ended, timeoutMs, `${count} bytes on stdout`);
    const all = join(this.#stdout);
    this.#stdout = [all.subarray(count)];
    return all.subarray(0, count);
  }

  /** The address that recv listens on, with the port that the system chose. */
  async listening(): Promise<string> {
    const [, address] = await this.waitFor(/listening on (\S+)/);
    return address.replace(/^0\.0\.0\.0:/, "127.0.0.1:");
  }

  /** Waits for the end. What {@link readStdout} took is not in `stdout`. */
  async ended(timeoutMs = TIMEOUT_MS): Promise<Ended> {
    await this.#until(() => this.#ended, timeoutMs, "its end");
    const { code, signal } = await this.#status;
    await this.#outputs;
    return { code, signal, stdout: join(this.#stdout), stderr: this.#stderr };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#ended) {
      try {
        this.#child.kill("SIGKILL");
      } catch {
        // It has just ended.
      }
    }
    await this.#writer?.close().catch(() => {});
    await this.#status;
    // What it started may hold its stderr open for longer than it lived itself.
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<void>((resolve) => timer = setTimeout(resolve, LAST_WORDS_MS));
    await Promise.race([this.#outputs, late]);
    clearTimeout(timer);
  }

  async #readStdout(): Promise<void> {
    for await (const part of this.#child.stdout) {
      this.#notify(() => {
        this.#stdout.push(part);
        this.#stdoutBytes += part.length;
      });
    }
  }

  async #readStderr(): Promise<void> {
    for await (const text of this.#child.stderr.pipeThrough(new TextDecoderStream())) {
      this.#notify(() => this.#stderr += text);
    }
  }

  #notify(change: () => void): void {
    change();
    for (const waiter of this.#waiters) waiter();
  }

  async #until(done: () => boolean, timeoutMs: number, what: string): Promise<void> {
    if (done()) return;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let check: (() => void) | undefined;
    try {
      await new Promise<void>((resolve, reject) => {
        timer = setTimeout(
          () => reject(this.#failure(`no ${what} in ${timeoutMs} ms`)),
          timeoutMs,
        );
        check = () => done() && resolve();
        this.#waiters.add(check);
      });
    } finally {
      clearTimeout(timer);
      this.#waiters.delete(check!);
    }
  }

  /** No error of kemari's own: its message has lines. */
  #failure(what: string): Error {
    return new Error(`kemari ${this.#args}: ${what}; stderr:\n${this.#stderr}`);
  }
}

function join(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
