/** What a command gets besides its options: the ways out that lib/cli may not open itself. */
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

/** What `run(options, context)` of each command gets. */
export interface CommandContext extends ProcessIo {
  /** The line at the bottom of a terminal; draws nothing if nobody is to see it. */
  readonly status: StatusLine;
}
