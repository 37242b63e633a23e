/**
 * What others have written, made fit to be shown.
 *
 * A peer's words, QEMU's, another process's are data. On a terminal they could otherwise move the
 * cursor, forge a line of ours, or be read in another order than they are written in.
 */

/** Characters of such a text that are shown, at the most. */
export const MAX_FOREIGN_CHARS = 1000;

/**
 * Control and format characters, lone surrogates, what Unicode has not assigned, ends of lines and of
 * paragraphs, and what fonts do not draw.
 */
const UNSEEN = /[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/u;

const SHORT: ReadonlyMap<string, string> = new Map([["\n", "\\n"], ["\r", "\\r"], ["\t", "\\t"]]);

/** What stands for bytes that are no UTF-8. */
const NO_TEXT = "\ufffd";

/**
 * The text on one line, every character of it to be seen: what cannot be is written as `\n` or
 * `\u{202e}`. What is too long ends in `…`. A text that has passed once passes as it is.
 *
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(foreignText("Grüße\n\x1b[2J\u202egnp"), "Grüße\\n\\u{1b}[2J\\u{202e}gnp");
 * assert.equal(foreignText(Uint8Array.of(0x61, 0xff)), "a\\u{fffd}");
 * assert.equal(foreignText("abcdef", 4), "abc…");
 * ```
 *
 * @param text Bytes are taken for UTF-8.
 * @param mostChars Characters of what is returned, at the most.
 */
export function foreignText(text: string | Uint8Array, mostChars = MAX_FOREIGN_CHARS): string {
  const decoded = typeof text === "string" ? text : decode(text, mostChars);
  if (decoded.length <= mostChars && !UNSEEN.test(decoded)) return decoded;
  let shown = "";
  let chars = 0;
  /** As much of it as leaves room for the mark of a cut. */
  let cut = "";
  for (const char of decoded) {
    const piece = UNSEEN.test(char) ? escape(char) : char;
    chars += piece === char ? 1 : piece.length;
    if (chars > mostChars) return `${cut}…`;
    shown += piece;
    if (chars < mostChars) cut = shown;
  }
  return shown;
}

/** Longer input than can be shown is not looked at. */
function decode(bytes: Uint8Array, mostChars: number): string {
  const text = new TextDecoder("utf-8", { ignoreBOM: true });
  // A character has four bytes at the most; one more character shows that something was cut.
  const part = bytes.subarray(0, 4 * (mostChars + 1));
  return text.decode(part).replaceAll(NO_TEXT, escape(NO_TEXT));
}

function escape(char: string): string {
  return SHORT.get(char) ?? `\\u{${char.codePointAt(0)!.toString(16)}}`;
}
