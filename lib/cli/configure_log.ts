/**
 * Writes log records as lines to stderr.
 *
 * Code anywhere to the right of the state machines logs with logtape, under the category of the
 * command: `getLogger(["kemari", "send"]).info("connected to {peer}", { peer })`.
 */
import { configure, type LogRecord } from "@logtape/logtape";
import { foreignText } from "../foreign_text.ts";
import type { LogOptions } from "./options/logging.ts";

/** The most characters of a value in a line. */
const MAX_VALUE_CHARS = 4000;

/** A value in a message: strings made fit to be shown, others as JSON. */
function sayValue(value: unknown): string {
  const plain = replaceUnsayable("", value);
  return typeof plain === "string"
    ? plain
    : JSON.stringify(plain, replaceUnsayable) ?? String(plain);
}

/**
 * Converts values for JSON: bigint counters, errors (which would become `{}`), and text from
 * others, such as QEMU's names or a peer's messages.
 */
function replaceUnsayable(_key: string, value: unknown): unknown {
  if (typeof value === "bigint") {
    return value <= Number.MAX_SAFE_INTEGER ? Number(value) : `${value}`;
  }
  const said = value instanceof Error ? value.message : value;
  return typeof said === "string" ? foreignText(said, MAX_VALUE_CHARS) : said;
}

/** The message with its values filled in. */
function messageOf(record: LogRecord): string {
  return record.message.map((part, index) => index % 2 === 0 ? `${part}` : sayValue(part)).join("");
}

/** `kemari send: connected to tcp:10.0.0.2:4000`; warnings and errors also name their level. */
function formatText(record: LogRecord): string {
  const severity = record.level === "info" ? "" : `${record.level}: `;
  return `${record.category.join(" ")}: ${severity}${messageOf(record)}\n`;
}

/**
 * One JSON object: `time` (ISO 8601), `level`, `logger` (`kemari.send`), `message`, then the
 * record's own properties. A property of one of those four names is left out.
 */
function formatJson(record: LogRecord): string {
  const line = {
    time: new Date(record.timestamp).toISOString(),
    level: record.level,
    logger: record.category.join("."),
    message: messageOf(record),
  };
  return JSON.stringify({ ...line, ...record.properties, ...line }, replaceUnsayable) + "\n";
}

/**
 * Sends every log record of this process to `write`, one line a record.
 *
 * @param write Takes whole lines, such as `StatusLine.print`.
 */
export async function configureLog(
  options: Pick<LogOptions, "logFormat" | "quiet">,
  write: (line: string) => void,
): Promise<void> {
  const format = options.logFormat === "json" ? formatJson : formatText;
  await configure({
    reset: true,
    sinks: { stderr: (record: LogRecord) => write(format(record)) },
    loggers: [
      { category: "kemari", lowestLevel: options.quiet ? "warning" : "info", sinks: ["stderr"] },
      { category: ["logtape", "meta"], lowestLevel: "warning", sinks: ["stderr"] },
    ],
  });
}
