/** The one line that tells a person how far things are. */
export interface ProgressLine {
  readonly isShown: boolean;
  set(text: string): void;
}
