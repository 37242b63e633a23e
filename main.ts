/**
 * The process: arguments in, exit code out. Nothing else in kemari ends it.
 *
 * The first SIGINT, SIGTERM or SIGHUP asks the command to wind up; the second ends the process.
 */
import manifest from "./deno.json" with { type: "json" };
import { EXIT, exitCodeOf, InterruptedError } from "./lib/errors.ts";
import type { ProcessIo } from "./lib/cli/command_context.ts";
import { formatFailure, wantedLogFormat } from "./lib/cli/format_failure.ts";
import { runProgram } from "./lib/cli/run_program.ts";

/** How long a command may take to wind up after a signal, in milliseconds. */
const WIND_UP_MS = 5000;

/** Writes all of `text`, however little the descriptor takes at a time. */
function writeAll(file: { writeSync(bytes: Uint8Array): number }, text: string): void {
  let rest = new TextEncoder().encode(text);
  while (rest.length > 0) {
    try {
      rest = rest.subarray(file.writeSync(rest));
    } catch (error) {
      // Another process that shares the descriptor has made it non-blocking: wait for the reader.
      if (!(error instanceof Deno.errors.WouldBlock)) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
    }
  }
}

/** Writes to stderr. If its reader has gone, the message is lost, and the command goes on. */
function writeError(text: string): void {
  try {
    writeAll(Deno.stderr, text);
  } catch {
    // There is no other place for the message.
  }
}

function columns(): number {
  try {
    return Deno.consoleSize().columns || 80;
  } catch {
    return 80;
  }
}

/** Prints the error, and ends the process with the error's exit code. */
function fail(thrown: unknown): never {
  writeError(formatFailure(thrown, wantedLogFormat(Deno.args), Date.now()));
  Deno.exit(exitCodeOf(thrown));
}

/** Whether SIGHUP was ignored when the process was started: by nohup, or by an empty trap. */
function ignoresHangUp(): boolean {
  try {
    const ignored = /^SigIgn:.*([0-9a-f])$/m.exec(Deno.readTextFileSync("/proc/self/status"));
    return ignored !== null && (parseInt(ignored[1], 16) & 1) !== 0;
  } catch {
    return false;
  }
}

/** Signals that other daemons take as commands. Their default would end this process. */
const UNHEARD = ["SIGUSR1", "SIGUSR2"] as const;

/**
 * Aborts on the first signal; on the second, or after `WIND_UP_MS`, ends the process.
 *
 * A guardian (`kemari guard`) ignores these signals. It clears up after `kemari protect` has ended,
 * and systemd, when it stops a service, signals every process of that service.
 */
function listenForSignals(): AbortSignal {
  const controller = new AbortController();
  const isGuardian = Deno.args[0] === "guard";
  // Asked before any listener is added: with the first, the runtime catches SIGHUP too.
  const staysUp = ignoresHangUp();
  for (const signal of UNHEARD) Deno.addSignalListener(signal, () => {});
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    Deno.addSignalListener(signal, () => {
      if (isGuardian || signal === "SIGHUP" && staysUp) return;
      if (controller.signal.aborted) Deno.exit(EXIT.interrupted);
      controller.abort(new InterruptedError(`interrupted by ${signal}`));
      const late = `interrupted by ${signal}, and cut off: it had not ended in ${WIND_UP_MS} ms`;
      setTimeout(() => fail(new InterruptedError(late)), WIND_UP_MS);
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
    // `kemari inspect … | head`: a reader of stdout that has read enough is no failure.
    if (error instanceof Deno.errors.BrokenPipe) Deno.exit(EXIT.done);
    fail(error);
  }
}
