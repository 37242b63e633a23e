import assert from "node:assert/strict";
import fc from "fast-check";
import { WireError } from "../errors.ts";
import { strayText } from "./stray_text.ts";
import { decodeHeader } from "./frame_header.ts";

const bytesOf = (text: string) => new TextEncoder().encode(text);
const shown = (text: string) => strayText(bytesOf(text), 0, bytesOf(text).length);

Deno.test("strayText shows text on one line, without what a terminal would obey", () => {
  const cases: [string, string | undefined][] = [
    ["220 smtp.example.org ESMTP\r\n", "220 smtp.example.org ESMTP"],
    ["\n\n  Welcome to host2 \n * 3 updates\n", "Welcome to host2 * 3 updates"],
    ["\x1b[31;1mred\x1b[0m \x1b]0;title\x07now", "red now"],
    ["Grüße\u202e von\u2028hier", "Grüße von hier"],
    ["Hi\x00\x01\x02 and more", "Hi"],
    ["", undefined],
    ["\x00\x01", undefined],
    ["a\x00", undefined],
    ["\r\n\x1b[0m", undefined],
    ["x".repeat(500), "x".repeat(159) + "…"],
  ];
  for (const [text, expected] of cases) assert.equal(shown(text), expected, JSON.stringify(text));
});

Deno.test("strayText shows nothing but printable characters of any bytes, and few", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 4000 }), (bytes) => {
      const text = strayText(bytes, 0, bytes.length) ?? "";
      assert.ok([...text].length <= 161);
      assert.doesNotMatch(text, /[\p{C}\p{Zl}\p{Zp}]/u);
    }),
    { seed: 12 },
  );
});

Deno.test("what a login shell prints before the first frame stands in the error, with where it comes from", () => {
  const bytes = bytesOf("Welcome to Debian!\nLast login: Sunday\n");
  for (const length of [2, 10, bytes.length]) {
    assert.throws(() => decodeHeader(bytes, 0, length, 0), (error) => {
      assert.ok(error instanceof WireError && error.fault === "bad-magic");
      const said = length === 2
        ? "We"
        : length === 10
        ? "Welcome to"
        : "Welcome .* Last login: Sunday";
      assert.match(error.message, new RegExp(`0x5765; the peer said "${said}"`));
      return /exec:ssh, a login shell .*interactive shells only/.test(error.hint!);
    });
  }
});
