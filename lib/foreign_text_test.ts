import assert from "node:assert/strict";
import { foreignText, MAX_FOREIGN_CHARS } from "./foreign_text.ts";

Deno.test("what a terminal would obey, or would not show, is written out", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["", ""],
    ["kemari 1.2 (Zürich, 東京, 🎏)", "kemari 1.2 (Zürich, 東京, 🎏)"],
    ["C:\\n \\u{1b}", "C:\\n \\u{1b}"],
    ["a\r\nkemari recv: primary lost", "a\\r\\nkemari recv: primary lost"],
    ["\x1b]0;title\x07\x9b2J\x00\x7f", "\\u{1b}]0;title\\u{7}\\u{9b}2J\\u{0}\\u{7f}"],
    ["\u202atxt\u202e\u2066x\u2069\u061c", "\\u{202a}txt\\u{202e}\\u{2066}x\\u{2069}\\u{61c}"],
    ["a\u2028b\u2029c\u0085d", "a\\u{2028}b\\u{2029}c\\u{85}d"],
    ["v\u200bm\u200d1\ufeff\u00ad", "v\\u{200b}m\\u{200d}1\\u{feff}\\u{ad}"],
    // Drawn by no font, though Unicode counts them as letters or marks.
    ["\u3164\u115f\u034f\ufe0f\u{e0041}", "\\u{3164}\\u{115f}\\u{34f}\\u{fe0f}\\u{e0041}"],
    ["half \ud83d, other half \udc4d", "half \\u{d83d}, other half \\u{dc4d}"],
    ["\ufdd0\u{10ffff}", "\\u{fdd0}\\u{10ffff}"],
  ];
  for (const [text, shown] of cases) {
    assert.equal(foreignText(text), shown);
    assert.equal(foreignText(shown), shown);
    const whole = text.isWellFormed();
    if (whole) assert.equal(foreignText(new TextEncoder().encode(text)), shown);
  }
});

Deno.test("bytes that are no UTF-8 are written out", () => {
  assert.equal(foreignText(Uint8Array.of(0x61, 0xc3)), "a\\u{fffd}");
  assert.equal(
    foreignText(Uint8Array.of(0xed, 0xa0, 0x80, 0x62)).replace(/(\\u\{fffd\})+/, "?"),
    "?b",
  );
  assert.equal(foreignText(Uint8Array.of(0xef, 0xbb, 0xbf, 0x62)), "\\u{feff}b");
});

Deno.test("what is too long is cut, and no part of an escape is left", () => {
  const long = foreignText("x".repeat(1e6));
  assert.equal(long.length, MAX_FOREIGN_CHARS);
  assert.ok(long.endsWith("x…"));
  assert.equal(foreignText(long), long);
  for (let most = 1; most < 12; most++) {
    const cut = foreignText("ab\u202ecd\u202e", most);
    assert.ok([...cut].length <= most, cut);
    assert.match(cut, /^(…|a…|ab…|ab\\u\{202e\}…|ab\\u\{202e\}c…)$/);
    assert.equal(foreignText(cut, most), cut);
  }
  assert.equal(foreignText("🎏🎏🎏", 3), "🎏🎏🎏");
  assert.equal(foreignText("🎏🎏🎏🎏", 3), "🎏🎏…");
  assert.equal(foreignText(new TextEncoder().encode("🎏".repeat(9)), 3), "🎏🎏…");
});
