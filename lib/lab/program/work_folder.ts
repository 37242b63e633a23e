/** Temporary folders and processes that do not outlive the program, however it ends. */

/**
 * Calls back when the process ends while this is in force: a second Ctrl-C waits for nobody.
 *
 * @returns A function that calls it off.
 */
export function atExit(cleanUp: () => void): () => void {
  globalThis.addEventListener("unload", cleanUp);
  return () => globalThis.removeEventListener("unload", cleanUp);
}

/** A folder that is removed at the end: `using folder = new WorkFolder()`. */
export class WorkFolder implements Disposable {
  readonly path: string;
  readonly #forget: () => void;

  /** @param parent Where to make it; the system's folder for temporary files by default. */
  constructor(parent?: string) {
    this.path = Deno.makeTempDirSync({ prefix: "kemari-bench-", dir: parent });
    this.#forget = atExit(() => this.#remove());
  }

  [Symbol.dispose](): void {
    this.#forget();
    this.#remove();
  }

  #remove(): void {
    Deno.removeSync(this.path, { recursive: true });
  }
}

/** Ends a process that may have ended by itself. */
export function endQuietly(child: Deno.ChildProcess): void {
  try {
    child.kill("SIGKILL");
  } catch {
    // It has.
  }
}
