/** One line at the bottom of the terminal that is redrawn in place. */
import { foreignText } from "../foreign_text.ts";
import type { Terminal } from "./terminal.ts";

/** How the line is shown: redrawn in place, as lines of their own, or not at all. */
export type StatusMode = "redraw" | "lines" | "off";

/** Least time between two drawings, in milliseconds. */
const DRAW_INTERVAL_MS: Readonly<Record<StatusMode, number>> = { redraw: 100, lines: 1000, off: 0 };

const ERASE_LINE = "\r\x1b[K";

/**
 * Shares stderr between log lines and a status line, so that neither mangles the other.
 *
 * Everything written to stderr while a status line may be on screen must go through `print`.
 * The line has no timer: a text that comes too soon is drawn with the next call of any method.
 */
export class StatusLine {
  readonly #terminal: Terminal;
  readonly #mode: StatusMode;
  readonly #nowMs: () => number;
  #text = "";
  #isDrawn = false;
  #drawnAtMs = -Infinity;

  /** @param nowMs A clock that only goes forward, in milliseconds. */
  constructor(
    terminal: Terminal,
    mode: StatusMode,
    nowMs: () => number = () => performance.now(),
  ) {
    this.#terminal = terminal;
    this.#mode = mode;
    this.#nowMs = nowMs;
  }

  /** Whether a text would be shown at all. */
  get isShown(): boolean {
    return this.#mode !== "off";
  }

  /** Replaces the text; may be called often. Line breaks become spaces. */
  set(text: string): void {
    if (this.#mode === "off") return;
    this.#text = foreignText(text.replaceAll(/\s*[\r\n]+\s*/g, " "));
    if (this.#nowMs() - this.#drawnAtMs < DRAW_INTERVAL_MS[this.#mode]) return;
    if (this.#mode === "redraw") return this.#terminal.write(this.#drawing());
    this.#drawnAtMs = this.#nowMs();
    this.#terminal.write(this.#text + "\n");
  }

  /** Writes whole lines, each ended with a line break, above the status line. */
  print(lines: string): void {
    if (!this.#isDrawn) return this.#terminal.write(lines);
    this.#terminal.write(ERASE_LINE + lines + this.#drawing());
  }

  /** Takes the line off the screen until it is drawn again; for text that goes to stdout. */
  hide(): void {
    if (!this.#isDrawn) return;
    this.#drawnAtMs = -Infinity;
    this.#isDrawn = false;
    this.#terminal.write(ERASE_LINE);
  }

  /** Takes the line off the screen and forgets the text. */
  clear(): void {
    this.#text = "";
    this.hide();
  }

  /** The characters that draw the text, cut to the width so that the terminal never wraps it. */
  #drawing(): string {
    this.#isDrawn = true;
    this.#drawnAtMs = this.#nowMs();
    const width = Math.max(1, this.#terminal.columns() - 1);
    const characters = [...this.#text];
    const cut = characters.length > width
      ? characters.slice(0, Math.max(0, width - 1)).join("") + "…"
      : this.#text;
    return ERASE_LINE + cut;
  }
}
