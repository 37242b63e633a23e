/** What a command gets besides its options: the I/O that lib/cli must not do itself. */
import type { StatusLine } from "./status_line.ts";
import type { Terminal } from "./terminal.ts";

/** The process around a command, as main.ts hands it in. */
export interface ProcessIo {
  /** Writes to stdout: results only. Never for commands whose stdout is a migration stream. */
  writeOut(text: string): void;
  readonly stderr: Terminal;
  /** Aborted on SIGINT and SIGTERM; its reason is an `InterruptedError`. */
  readonly signal: AbortSignal;
}

/** The context for `run(options, context)` of each command. */
export interface CommandContext extends ProcessIo {
  /** The line at the bottom of a terminal; draws nothing if it is off. */
  readonly status: StatusLine;
}
