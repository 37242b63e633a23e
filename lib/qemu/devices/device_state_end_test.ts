import assert from "node:assert/strict";
import fc from "fast-check";
import { loadStream } from "../../lab/recording/streams.ts";
import { findDeviceStateEnd } from "./device_state_end.ts";
import { recordedPass } from "../testing/recorded_state.ts";

const JSON_TEXT = '{"page_size": 4096, "devices": []}';

function description(text: string, lengthBytes = text.length): number[] {
  const { buffer } = Uint32Array.of(0);
  new DataView(buffer).setUint32(0, lengthBytes);
  return [0x00, 0x06, ...new Uint8Array(buffer), ...new TextEncoder().encode(text)];
}

/** Gives the bytes in pieces, as a stream does, and follows `from`. */
function findInPieces(bytes: Uint8Array, start: number, pieceBytes: number) {
  let from = start;
  for (let length = start;; length = Math.min(length + pieceBytes, bytes.length)) {
    const search = findDeviceStateEnd(bytes.subarray(0, length), from);
    if (search.kind === "found") return { ...search, length };
    assert.ok(search.from >= from);
    from = search.from;
    if (length === bytes.length) return search;
  }
}

Deno.test("findDeviceStateEnd finds a recorded state's end, however it comes in", () => {
  for (const name of ["plain-7.2-virtio", "plain-10.0-q35", "plain-11.1-bios"]) {
    const stream = loadStream(name);
    const { offset, state, json, jsonOffset } = recordedPass(stream);
    for (const pieceBytes of [997, 65_536, stream.length]) {
      const search = findInPieces(stream, offset, pieceBytes);
      assert.ok(search.kind === "found", name);
      assert.deepEqual(
        [search.eofOffset, search.jsonStart, search.jsonEnd],
        [offset + state.length - 1, jsonOffset, jsonOffset + json.length],
      );
    }
  }
});

Deno.test("findDeviceStateEnd does not find an end where QEMU sent no description", () => {
  const stream = loadStream("plain-11.1-no-vmdesc");
  assert.deepEqual(findDeviceStateEnd(stream, 0).kind, "more");
});

Deno.test("findDeviceStateEnd passes over what only looks like an end", async (t) => {
  const cases: [string, number[]][] = [
    ["a VMDESCRIPTION byte without EOF before it", [0x01, ...description(JSON_TEXT).slice(1)]],
    ["a length beyond the bound", description("{", 0xffff_ffff)],
    ["a length too short", description("{}")],
    ["no JSON object", description("[1, 2, 3, 4, 5, 6]")],
    ["broken JSON", description('{"devices": [}          }')],
    ["JSON without devices", description('{"page_size": 4096, "gadgets": []}')],
    ["an unfinished text that reaches beyond the end", description(`{"devices": [`, 4000)],
    ["control characters in the JSON", description('{"devices":\u0001 []}')],
    ["EOF and type byte again and again", [0, 6, 0, 6, 6, 0, 0, 6]],
  ];
  for (const [name, lookalike] of cases) {
    await t.step(name, () => {
      const bytes = new Uint8Array([9, ...lookalike, 0x7e, ...description(JSON_TEXT)]);
      for (let piece = 1; piece <= 9; piece++) {
        const search = findInPieces(bytes, 0, piece);
        assert.ok(search.kind === "found", `pieces of ${piece}`);
        assert.equal(search.eofOffset, lookalike.length + 2);
        assert.equal(search.jsonEnd, bytes.length);
      }
    });
  }
});

Deno.test("findDeviceStateEnd asks for more at every truncated prefix", () => {
  const bytes = new Uint8Array([1, 2, 3, ...description(JSON_TEXT)]);
  for (let length = 0; length < bytes.length; length++) {
    const search = findDeviceStateEnd(bytes.subarray(0, length), 0);
    assert.ok(search.kind === "more");
    assert.ok(search.from <= Math.max(3, length - 1));
    assert.ok(length < 4 || search.from === 3, `${length}: ${search.from}`);
  }
});

Deno.test("findDeviceStateEnd finds the same end for any payload and any pieces", () => {
  fc.assert(
    fc.property(
      fc.array(fc.constantFrom(0, 6, 0x7b, 0x7d, 0x22), { maxLength: 60 }),
      fc.integer({ min: 1, max: 40 }),
      (payload, pieceBytes) => {
        const bytes = new Uint8Array([...payload, 0x7e, ...description(JSON_TEXT)]);
        const search = findInPieces(bytes, 0, pieceBytes);
        assert.ok(search.kind === "found");
        assert.equal(search.eofOffset, payload.length + 1);
      },
    ),
    { seed: 2010 },
  );
});
