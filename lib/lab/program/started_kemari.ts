/** A kemari that an experiment runs, and what it says if it does not get ready. */
import { TransportError } from "../../errors.ts";
import { askStatus } from "../../host/system/ask_control.ts";
import { end, whileAlive } from "./lab_process.ts";
import { atExit, endQuietly } from "./work_folder.ts";
import { delay } from "../../host/system/delay.ts";

const SAID_CHARACTERS = 2000;
const LAST_WORDS_MS = 300;

/** A kemari that ends with the stack it was started on. */
interface StartedKemari {
  readonly pid: number;
  /** Waits until it is ready. @throws {TransportError} With what it said, if it ends before. */
  until(name: string, ready: () => boolean | Promise<boolean>, signal: AbortSignal): Promise<void>;
}

/** What it says is kept to itself, unless it ends too soon: at the end it misses its QEMU. */
export function startKemari(
  command: readonly string[],
  stack: AsyncDisposableStack,
): StartedKemari {
  const [program, ...args] = command;
  const child = new Deno.Command(program, { args, stdin: "null", stdout: "null", stderr: "piped" })
    .spawn();
  const forget = atExit(() => endQuietly(child));
  let said = "";
  const reading = (async () => {
    for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) {
      said = (said + text).slice(-SAID_CHARACTERS);
    }
  })();
  // Its guardian has the same stderr, for a moment longer.
  const heard = () => Promise.race([reading, delay(LAST_WORDS_MS)]);
  stack.defer(async () => {
    await end(child);
    forget();
    await heard();
  });
  return {
    pid: child.pid,
    async until(name, ready, signal) {
      try {
        await whileAlive(child, name, async () => await ready(), signal);
      } catch (error) {
        signal.throwIfAborted();
        await heard();
        throw new TransportError(
          name,
          "spawn",
          `${(error as Error).message}: ${said.trim().replaceAll("\n", " | ")}`,
        );
      }
    },
  };
}

/** Whether a socket, or anything else of that name, is there. */
export function isThere(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}

/** Whether the `kemari recv` behind a control socket listens: it answers before that. */
export async function listens(control: string, signal: AbortSignal): Promise<boolean> {
  try {
    return (await askStatus(control, signal)).state !== "starting";
  } catch (error) {
    if (error instanceof TransportError) return false;
    throw error;
  }
}
