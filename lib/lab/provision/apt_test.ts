import assert from "node:assert/strict";
import { TransportError } from "../../errors.ts";
import { decodePrintUris, findMirror } from "./apt.ts";

const HASH = "0123456789abcdef".repeat(4);

Deno.test("decodePrintUris reads name, size and SHA-256", () => {
  const text = "Reading package lists...\n" +
    `'http://mirror/debian/pool/a_1%3a2_amd64.deb' a_1%3a2_amd64.deb 123 SHA256:${HASH}\n`;
  assert.deepEqual(decodePrintUris(text), [
    { name: "a_1%3a2_amd64.deb", lengthBytes: 123, sha256: HASH },
  ]);
});

Deno.test("decodePrintUris refuses a file whose contents nothing vouches for", () => {
  assert.throws(() => decodePrintUris("'http://m/a.deb' a.deb 1 MD5Sum:00\n"), TransportError);
});

Deno.test("findMirror reads both formats of apt's sources", () => {
  const cases: [string, string | undefined][] = [
    ["deb http://mirror.example/debian bookworm main", "http://mirror.example/debian"],
    ["deb [arch=amd64] https://m.example/x/debian/ trixie main", "https://m.example/x/debian"],
    ["Types: deb\nURIs: http://m.example/debian\nSuites: x", "http://m.example/debian"],
    ["deb http://m.example/debian-security bookworm-security main", undefined],
    ["# deb http://m.example/debian bookworm main", undefined],
    ["deb http://m.example/ubuntu noble main", undefined],
    ["", undefined],
  ];
  for (const [text, mirror] of cases) assert.equal(findMirror(text), mirror, text);
});
