import assert from "node:assert/strict";
import fc from "fast-check";
import { WireError } from "../errors.ts";
import { encodeCommand, MessageDecoder } from "./codec.ts";

const encoder = new TextEncoder();

function decodeAll(decoder: MessageDecoder): unknown[] {
  const objects: unknown[] = [];
  for (let message = decoder.take(); message !== undefined; message = decoder.take()) {
    objects.push(message.object);
  }
  return objects;
}

Deno.test("encodeCommand writes one line, with the id and without empty arguments", () => {
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  assert.equal(
    text(encodeCommand({ execute: "stop" }, 7)),
    '{"execute":"stop","id":7}\r\n',
  );
  assert.equal(
    text(encodeCommand({ execute: "yank", arguments: { a: "é\n" }, outOfBand: true }, 8)),
    '{"exec-oob":"yank","arguments":{"a":"é\\n"},"id":8}\r\n',
  );
});

Deno.test("MessageDecoder gives each object with its offset, on one line or on many", () => {
  const decoder = new MessageDecoder();
  decoder.receive(encoder.encode('\r\n{"a": "}\\"{"}\r\n{\n  "b": {\n    "c": [{}]\n  }\n}{}'));
  assert.deepEqual(decoder.take(), { offset: 2, object: { a: '}"{' } });
  assert.deepEqual(decoder.take(), { offset: 17, object: { b: { c: [{}] } } });
  assert.deepEqual(decoder.take()?.object, {});
  assert.equal(decoder.take(), undefined);
  decoder.end();
});

Deno.test("MessageDecoder gives the same messages for any split of the bytes", () => {
  fc.assert(
    fc.property(
      fc.array(fc.dictionary(fc.string({ unit: "grapheme" }), fc.jsonValue()), { maxLength: 4 }),
      fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 20 }),
      (values, sizes) => {
        const objects = values.map((value) => JSON.parse(JSON.stringify(value)));
        const bytes = encoder.encode(objects.map((each) => JSON.stringify(each)).join("\r\n"));
        const decoder = new MessageDecoder();
        for (let at = 0, turn = 0; at < bytes.length; turn++) {
          const end = at + sizes[turn % sizes.length];
          decoder.receive(bytes.subarray(at, end));
          at = end;
        }
        decoder.end();
        assert.deepEqual(decodeAll(decoder), objects);
      },
    ),
    { seed: 2010 },
  );
});

Deno.test("MessageDecoder asks for more at every truncated prefix, and its end is an error", () => {
  const bytes = encoder.encode('{"return": {"text": "a\\\\"}}');
  for (let length = 1; length < bytes.length; length++) {
    const decoder = new MessageDecoder();
    decoder.receive(bytes.subarray(0, length));
    assert.equal(decoder.take(), undefined);
    assert.throws(() => decoder.end(), /truncated/);
  }
});

Deno.test("MessageDecoder refuses bytes that are no QMP, at their offset", async (t) => {
  const cases: [string, string, number, WireError["fault"]][] = [
    ["another protocol's greeting", '{"QMP": {}}\nSSH-2.0', 12, "bad-value"],
    ["an array", "[1]", 0, "bad-value"],
    ["braces without JSON", '{"a": 1}{what}', 8, "bad-value"],
    ["a message beyond the bound", `{"a": "${"x".repeat(100)}`, 0, "too-large"],
  ];
  for (const [name, text, offset, fault] of cases) {
    await t.step(name, () => {
      for (const pieceBytes of [1, 5, text.length]) {
        const decoder = new MessageDecoder(64);
        const bytes = encoder.encode(text);
        assert.throws(() => {
          for (let at = 0; at < bytes.length; at += pieceBytes) {
            decoder.receive(bytes.subarray(at, at + pieceBytes));
          }
        }, (error) => {
          assert.ok(error instanceof WireError);
          assert.equal(error.protocol, "qmp");
          assert.equal(error.fault, fault);
          if (fault !== "too-large") assert.equal(error.offset, offset);
          return true;
        });
      }
    });
  }
});
