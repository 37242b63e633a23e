/** The user's own ssh as a process, and its stderr. */
import { type PipedCommand, startPiped } from "../system/piped_command.ts";
import type { Descriptors } from "../system/transport.ts";
import { within } from "../system/within.ts";

/** How many lines of stderr are kept, and how many characters of each. */
const MOST_LINES = 20;
const MAX_LINE_CHARS = 1000;
/** How long ssh may take to end after its stdin and stdout are closed, in milliseconds. */
const END_MS = 1000;
/** How long after its end its last output may come, in milliseconds. */
const LAST_WORDS_MS = 200;

/**
 * An ssh process, which may have ended.
 *
 * It ignores signals to a group of processes, such as from Ctrl-C or from stopping a service, so
 * that the last messages of a session that ends by them still go through. While it asks for a
 * password, ssh does react to Ctrl-C.
 */
export class SshProcess {
  readonly #command: PipedCommand;
  readonly #lines: string[] = [];
  readonly #words: Promise<void>;
  #begun = "";
  #isClosed = false;
  #reader: ReadableStreamDefaultReader<string> | undefined;

  /** Called with each line of stderr from now on. */
  onLine: (line: string) => void = () => {};

  private constructor(command: PipedCommand) {
    this.#command = command;
    this.#words = this.#readWords();
  }

  /** @throws {TransportError} The process cannot be started. */
  static async start(commandLine: string, name: string): Promise<SshProcess> {
    const ignored = ["INT", "QUIT", "HUP", "TERM"];
    return new SshProcess(await startPiped(commandLine, name, { stderr: "piped", ignored }));
  }

  /** ssh's stdout to read from, and its stdin to write to. Closing them, once or more, ends ssh. */
  get descriptors(): Descriptors {
    return { ...this.#command.descriptors, close: () => this.kill() };
  }
  get exitCode(): Promise<number> {
    return this.#command.exitCode;
  }
  /** The last lines of stderr. */
  get lines(): readonly string[] {
    return this.#begun === "" ? this.#lines : [...this.#lines, this.#begun];
  }

  /**
   * Waits for the end of an ssh that is no longer needed, and ends it if that takes too long.
   *
   * @returns Its exit code; `undefined` if ssh had to be ended.
   */
  async end(): Promise<number | undefined> {
    this.#closePipes();
    const code = await within(END_MS, this.exitCode);
    // A process that ssh leaves behind, for its other users, may keep stderr open.
    if (code !== undefined) await within(LAST_WORDS_MS, this.#words);
    this.kill();
    return code;
  }

  /** Ends ssh at once. */
  kill(): void {
    this.#closePipes();
    this.#command.end("SIGKILL");
    this.onLine = () => {};
    void this.#reader?.cancel().catch(() => {});
  }

  #closePipes(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#command.descriptors.close();
  }

  async #readWords(): Promise<void> {
    try {
      const text = new TextDecoderStream();
      const reader = this.#reader = this.#command.stderr!
        .pipeThrough(text as TransformStream<Uint8Array, string>).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        this.#heard(value);
      }
    } catch {
      // ssh was ended already.
    }
    if (this.#begun !== "") this.#line(this.#begun);
    this.#begun = "";
  }

  #heard(text: string): void {
    const lines = (this.#begun + text).split(/\r?\n|\r/);
    this.#begun = lines.pop()!.slice(0, MAX_LINE_CHARS);
    for (const line of lines) this.#line(line.slice(0, MAX_LINE_CHARS));
  }

  #line(line: string): void {
    if (line.trim() === "") return;
    this.#lines.push(line);
    if (this.#lines.length > MOST_LINES) this.#lines.shift();
    this.onLine(line);
  }
}
