/** What stands where a frame is to begin: for a message, so that a person sees who has said it. */
import { foreignText } from "../foreign_text.ts";

/** The most of it that is shown. */
const MAX_SHOWN_CHARS = 160;
/** The most that is looked at: a greeting may begin with lines of nothing but colour. */
const MAX_LOOKED_AT_BYTES = 2048;

const isTextByte = (byte: number) =>
  byte >= 0x20 && byte !== 0x7f || byte >= 0x07 && byte <= 0x0a || byte === 0x0d || byte === 0x1b;

/**
 * The text that `bytes[at, end)` begins with, on one line and cut to what a message can hold.
 *
 * ```ts
 * import assert from "node:assert/strict";
 * const greeting = new TextEncoder().encode("\x1b[1mWelcome\x1b[0m\r\n  to host2\n\x00\x01");
 * assert.equal(strayText(greeting, 0, greeting.length), "Welcome to host2");
 * ```
 *
 * @returns Undefined where it begins with anything else.
 */
export function strayText(bytes: Uint8Array, at: number, end: number): string | undefined {
  const limit = Math.min(end, at + MAX_LOOKED_AT_BYTES);
  let stop = at;
  while (stop < limit && isTextByte(bytes[stop])) stop++;
  const text = new TextDecoder().decode(bytes.subarray(at, stop))
    // deno-lint-ignore no-control-regex
    .replace(/\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*|.)/g, "")
    .replace(/[\p{C}\p{Zl}\p{Zp}\ufffd\s]+/gu, " ").trim();
  // Two bytes of anything may look like letters.
  if (text === "" || stop - at < 2) return undefined;
  return foreignText(text, MAX_SHOWN_CHARS);
}
