/** A line that shows a person the progress, in the terminal. */
export interface ProgressLine {
  readonly isShown: boolean;
  set(text: string): void;
}
