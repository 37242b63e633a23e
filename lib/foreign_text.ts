/**
 * Text from other programs, made fit to be shown.
 *
 * Text from a peer, QEMU or another process is data. On a terminal it could otherwise move the
 * cursor, forge a line of kemari's, or show in another order than written.
 */

/** The most characters of such a text that are shown. */
export const MAX_FOREIGN_CHARS = 1000;

/**
 * Control and format characters, lone surrogates, what Unicode has not assigned, ends of lines and
 * of paragraphs, and what fonts do not draw.
 */
const UNSEEN = /[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/u;

const SHORT: ReadonlyMap<string, string> = new Map([["\n", "\\n"], ["\r", "\\r"], ["\t", "\\t"]]);

/** The replacement for bytes that are not UTF-8. */
const NO_TEXT = "\ufffd";

/**
 * Makes a text one line of visible characters: invisible ones are written as `\n` or `\u{202e}`. A
 * text that is too long ends in `…`. A text that was made fit before does not change.
 *
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(foreignText("Grüße\n\x1b[2J\u202egnp"), "Grüße\\n\\u{1b}[2J\\u{202e}gnp");
 * assert.equal(foreignText(Uint8Array.of(0x61, 0xff)), "a\\u{fffd}");
 * assert.equal(foreignText("abcdef", 4), "abc…");
 * ```
 *
 * @param text Bytes are taken for UTF-8.
 * @param mostChars The most characters of the result.
 */
export function foreignText(text: string | Uint8Array, mostChars = MAX_FOREIGN_CHARS): string {
  const decoded = typeof text === "string" ? text : decode(text, mostChars);
  if (decoded.length <= mostChars && !UNSEEN.test(decoded)) return decoded;
  let shown = "";
  let chars = 0;
  /** The part of the result that leaves room for the mark of a cut. */
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

/** Drops input that is longer than can be shown. */
function decode(bytes: Uint8Array, mostChars: number): string {
  const text = new TextDecoder("utf-8", { ignoreBOM: true });
  // A character has four bytes at the most; one more character shows that something was cut.
  const part = bytes.subarray(0, 4 * (mostChars + 1));
  return text.decode(part).replaceAll(NO_TEXT, escape(NO_TEXT));
}

function escape(char: string): string {
  return SHORT.get(char) ?? `\\u{${char.codePointAt(0)!.toString(16)}}`;
}
