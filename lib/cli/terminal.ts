/** The output for people, for lib/cli. */
/** The output for people: stderr. */
export interface Terminal {
  /** Writes all of `text` before it returns. */
  write(text: string): void;
  /** Whether a person may be watching. */
  readonly isTerminal: boolean;
  /** Width in characters, read anew at each call: windows are resized. */
  columns(): number;
}
