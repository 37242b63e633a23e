/** The lines on stderr for an error that ends a command. */
import { foreignText } from "../foreign_text.ts";
import { EXIT, exitCodeOf, KemariError } from "../errors.ts";
import { asksForJsonLog } from "../host/system/self_command.ts";
import type { LogFormat } from "./options/logging.ts";

/** Fields of the errors that scripts may want to match on. */
const DETAILS = [
  "party",
  "protocol",
  "offset",
  "fault",
  "endpoint",
  "phase",
  "command",
  "errorClass",
];

/** The most characters of a message. */
const MAX_CHARS = 4000;

/** A property of an unknown value, if it has it. */
function field(error: unknown, name: string): unknown {
  return typeof error === "object" && error !== null ? Reflect.get(error, name) : undefined;
}

/** The lines of a stack; the first one has the error's message. */
function plainStack(stack: unknown): string | undefined {
  if (stack === undefined) return undefined;
  return String(stack).split("\n").map((line) => foreignText(line, MAX_CHARS)).join("\n");
}

/**
 * The log format that a command line asks for.
 *
 * @param args The arguments after `kemari`.
 */
export function wantedLogFormat(args: readonly string[]): LogFormat {
  return asksForJsonLog(args) ? "json" : "text";
}

/**
 * The lines that say why a command has ended, each with its line break.
 *
 * A bug in kemari also shows its stack, and a request to report it.
 *
 * @param timeMs The time of the failure, in milliseconds since 1970; JSON carries it.
 */
export function formatFailure(error: unknown, format: LogFormat, timeMs: number): string {
  const exitCode = exitCodeOf(error);
  const isBug = exitCode === EXIT.bug;
  const message = foreignText(error instanceof Error ? error.message : String(error), MAX_CHARS);
  const hint = error instanceof KemariError ? error.hint : undefined;
  const stack = isBug ? plainStack(field(error, "stack")) : undefined;
  if (format === "json") {
    const line: Record<string, unknown> = {
      time: new Date(timeMs).toISOString(),
      level: "error",
      logger: "kemari",
      message,
      hint,
      error: field(error, "name"),
      exitCode,
    };
    for (const name of DETAILS) {
      const value = field(error, name);
      if (typeof value === "string") line[name] = foreignText(value);
      if (typeof value === "number") line[name] = value;
    }
    return JSON.stringify({ ...line, stack }) + "\n";
  }
  const lines = [`kemari: ${message}`];
  if (hint !== undefined) lines.push(`hint: ${hint}`);
  if (isBug) {
    lines.push(stack ?? "");
    lines.push(
      "This is a bug in kemari. Please report it, with these lines and `kemari --version`.",
    );
  }
  return lines.filter((line) => line !== "").join("\n") + "\n";
}
