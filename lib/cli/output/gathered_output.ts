const GATHERED_CHARACTERS = 64 * 1024;

/** Joins small texts into larger writes. Call {@link flush} at the end: the last texts are lost otherwise. */
export class GatheredOutput {
  readonly #write: (text: string) => void;
  #parts: string[] = [];
  #characters = 0;

  constructor(write: (text: string) => void) {
    this.#write = write;
  }

  add(text: string): void {
    this.#parts.push(text);
    this.#characters += text.length;
    if (this.#characters >= GATHERED_CHARACTERS) this.flush();
  }

  flush(): void {
    if (this.#parts.length === 0) return;
    const text = this.#parts.join("");
    this.#parts = [];
    this.#characters = 0;
    this.#write(text);
  }
}
