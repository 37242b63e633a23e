/** The parts of a command's help that are not commander's: examples, notes, exit status. */
import { EXIT } from "../errors.ts";

/** The meanings of a command's exit codes. */
type ExitStatus = Readonly<Partial<Record<keyof typeof EXIT, string>>>;

/** Terms and their explanations, in two columns. */
type Terms = Readonly<Record<string, string>>;

/** One section of the help. */
export interface Note {
  readonly title: string;
  /** Paragraphs and terms. The line breaks in a text are not kept. */
  readonly parts: readonly (string | Terms)[];
}

/** The help below a command's options. */
export interface HelpTail {
  /** Command lines as they are typed; long ones are broken by hand before column 78. */
  readonly examples: readonly string[];
  readonly notes?: readonly Note[];
  /** Added to the meanings of 2, 70 and 130, which all commands have. */
  readonly exits: ExitStatus;
}

/** The meanings that all commands have. */
const COMMON_EXITS: ExitStatus = {
  usage: "the command line is wrong",
  bug: "a bug in kemari",
  interrupted: "SIGINT, SIGTERM or SIGHUP",
};

/** The least width of lines, in characters, however narrow the terminal is. */
const MIN_WIDTH = 40;

/** A term wider than this, in characters, has its explanation below rather than beside it. */
const MAX_TERM_WIDTH = 18;

/**
 * Breaks a text into lines of whole words.
 *
 * ```ts
 * import assert from "node:assert/strict";
 * assert.deepEqual(wrap("one two\n three", 9), ["one two", "three"]);
 * ```
 *
 * @param width In characters. A word that is longer has a line of its own.
 */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(/\s+/).filter((word) => word !== "")) {
    const line = lines.at(-1);
    if (line === undefined || line.length + 1 + word.length > width) lines.push(word);
    else lines[lines.length - 1] = `${line} ${word}`;
  }
  return lines;
}

/** The text in lines that begin with `indent` spaces. */
function indented(text: string, indent: number, width: number): string[] {
  return wrap(text, width - indent).map((line) => " ".repeat(indent) + line);
}

/** A term with its explanation beside it, or below it if the term is too wide. */
function explained(term: string, text: string, column: number, width: number): string[] {
  const lines = indented(text, column, width);
  const head = `  ${term}`;
  if (head.length + 2 > column) return [head, ...lines];
  return [head + lines[0].slice(head.length), ...lines.slice(1)];
}

/** The lines of one section, its title first. */
function noteLines({ title, parts }: Note, width: number): string[] {
  const blocks = parts.map((part) =>
    typeof part === "string" ? indented(part, 2, width) : termLines(part, width)
  );
  return [`${title}:`, ...blocks.flatMap((lines, index) => index === 0 ? lines : ["", ...lines])];
}

function termLines(terms: Terms, width: number): string[] {
  const widths = Object.keys(terms).map((term) => term.length);
  const column = 4 + Math.max(0, ...widths.filter((each) => each <= MAX_TERM_WIDTH));
  return Object.entries(terms).flatMap(([term, text]) => explained(term, text, column, width));
}

/** `Exit status:`, with one or more lines for each code, in the order of the codes. */
function exitLines(exits: ExitStatus, width: number): string[] {
  const all: ExitStatus = { ...COMMON_EXITS, ...exits };
  const names = Object.keys(EXIT) as (keyof typeof EXIT)[];
  const lines = names.flatMap((name) => {
    const meaning = all[name];
    return meaning === undefined ? [] : explained(String(EXIT[name]), meaning, 7, width);
  });
  return ["Exit status:", ...lines];
}

/**
 * The text below a command's options: examples, then notes, then what each exit status means.
 *
 * @param width The width of the reader's terminal, in characters.
 */
export function formatTail({ examples, notes = [], exits }: HelpTail, width: number): string {
  const lineWidth = Math.max(MIN_WIDTH, width);
  const sections = [
    ["Examples:", ...examples.map((example) => `  ${example}`)],
    ...notes.map((note) => noteLines(note, lineWidth)),
    exitLines(exits, lineWidth),
  ];
  return sections.map((lines) => `\n${lines.join("\n")}\n`).join("").trimEnd();
}
