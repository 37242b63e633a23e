/**
 * The process: arguments in, exit code out. Nothing else in kemari ends it.
 *
 * The first SIGINT, SIGTERM or SIGHUP asks the command to wind up, a second one does not ask.
 */
import manifest from "./deno.json" with { type: "json" };
import { EXIT, exitCodeOf, InterruptedError } from "./lib/errors.ts";
import type { ProcessIo } from "./lib/cli/context.ts";
import { formatFailure, wantedLogFormat } from "./lib/cli/failure.ts";
import { runProgram } from "./lib/cli/program.ts";

/** How long a command may take to wind up after a signal, in milliseconds. */
const WIND_UP_MS = 5000;

/** Writes all of `text`, however little the descriptor takes at a time. */
function writeAll(file: { writeSync(bytes: Uint8Array): number }, text: string): void {
  let rest = new TextEncoder().encode(text);
  while (rest.length > 0) {
    try {
      rest = rest.subarray(file.writeSync(rest));
    } catch (error) {
      // A descriptor shared with a process that made it non-blocking; it is being read.
      if (!(error instanceof Deno.errors.WouldBlock)) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
    }
  }
}

/** Messages to a stderr that nobody holds any more are lost, and that is no reason to fail. */
function writeError(text: string): void {
  try {
    writeAll(Deno.stderr, text);
  } catch {
    // Nowhere left to say it.
  }
}

function columns(): number {
  try {
    return Deno.consoleSize().columns || 80;
  } catch {
    return 80;
  }
}

/** Says why, and ends the process. */
function fail(thrown: unknown): never {
  writeError(formatFailure(thrown, wantedLogFormat(Deno.args), Date.now()));
  Deno.exit(exitCodeOf(thrown));
}

/** Whether we were started to outlive the terminal: by nohup, or with a trap on nothing. */
function ignoresHangUp(): boolean {
  try {
    const ignored = /^SigIgn:.*([0-9a-f])$/m.exec(Deno.readTextFileSync("/proc/self/status"));
    return ignored !== null && (parseInt(ignored[1], 16) & 1) !== 0;
  } catch {
    return false;
  }
}

/** Signals that mean something to other daemons, and whose default would end this one. */
const UNHEARD = ["SIGUSR1", "SIGUSR2"] as const;

/**
 * Aborts on the first signal; on the second, or after `WIND_UP_MS`, ends the process. Not a guardian:
 * it is there for what the others leave behind, and a service that is stopped signals it too.
 */
function listenForSignals(): AbortSignal {
  const controller = new AbortController();
  const isGuardian = Deno.args[0] === "guard";
  // The runtime catches SIGHUP with the first listener of any signal: later nobody could tell.
  const staysUp = ignoresHangUp();
  for (const signal of UNHEARD) Deno.addSignalListener(signal, () => {});
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    Deno.addSignalListener(signal, () => {
      if (isGuardian || signal === "SIGHUP" && staysUp) return;
      if (controller.signal.aborted) Deno.exit(EXIT.interrupted);
      const reason = new InterruptedError(`interrupted by ${signal}`);
      controller.abort(reason);
      setTimeout(() => fail(reason), WIND_UP_MS);
    });
  }
  return controller.signal;
}

if (import.meta.main) {
  globalThis.addEventListener("unhandledrejection", (event) => fail(event.reason));
  globalThis.addEventListener("error", (event) => fail(event.error ?? event.message));
  const io: ProcessIo = {
    writeOut: (text) => writeAll(Deno.stdout, text),
    stderr: { write: writeError, isTerminal: Deno.stderr.isTerminal(), columns },
    signal: listenForSignals(),
  };
  try {
    Deno.exit(await runProgram(Deno.args, manifest.version, io));
  } catch (error) {
    // `kemari inspect … | head`: whoever wanted the rest has gone, and that is no failure.
    if (error instanceof Deno.errors.BrokenPipe) Deno.exit(EXIT.done);
    fail(error);
  }
}
