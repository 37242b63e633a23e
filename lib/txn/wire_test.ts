import assert from "node:assert/strict";
import fc from "fast-check";
import { WireError, type WireFault } from "../errors.ts";
import { decodeHello, encodeHello, FEATURE, type Hello, PROTOCOL_VERSION } from "./hello.ts";
import { decodeHeader, encodeHeader } from "./frame_header.ts";
import { MAX_HELLO_FIELDS } from "./hello_fields.ts";
import { HEADER_BYTES, MAX_CONTROL_BYTES, MAX_PAYLOAD_BYTES, TXN } from "./wire.ts";

function expectFault(action: () => unknown, fault: WireFault, offset: number, message: RegExp) {
  assert.throws(action, (error) => {
    assert.ok(error instanceof WireError, `${error}`);
    assert.match(error.message, message);
    assert.deepEqual([error.protocol, error.fault, error.offset], ["transaction", fault, offset]);
    return true;
  });
}

const header = (command: number, lengthBytes = 0, flags = 0, transaction = 7, sequence = 3) =>
  encodeHeader({ command, flags, sequence, transaction, lengthBytes });

const HELLO: Hello = {
  version: PROTOCOL_VERSION,
  features: FEATURE.digests,
  session: Uint8Array.from({ length: 16 }, (_, i) => i),
  heartbeatMs: 100,
  graceMs: 500,
  committed: 41,
  maxTransactionBytes: 2 ** 33,
  software: "kemari 0.1.0",
};

Deno.test("a frame's header survives the wire", () => {
  const counted = [TXN.CONTINUE, TXN.CANCEL].map((command) =>
    fc.record({
      command: fc.constant(command),
      flags: fc.constant(0),
      sequence: fc.nat(0xffff_ffff),
      transaction: fc.maxSafeNat().map((n) => n || 1),
      lengthBytes: fc.nat(command === TXN.CONTINUE ? MAX_PAYLOAD_BYTES : 0),
    })
  );
  const digest = fc.record({
    command: fc.constantFrom(TXN.DIGEST, TXN.DISK_DIGEST),
    flags: fc.nat(1),
    sequence: fc.constant(0),
    transaction: fc.constant(0),
    lengthBytes: fc.integer({ min: 16, max: MAX_CONTROL_BYTES }),
  });
  fc.assert(
    fc.property(fc.oneof(...counted, digest), (header) => {
      const bytes = encodeHeader(header);
      assert.equal(bytes.length, HEADER_BYTES);
      assert.deepEqual(decodeHeader(bytes, 0, bytes.length, 0), { ...header });
    }),
    { seed: 3 },
  );
});

Deno.test("fewer bytes than a header are waited for, unless they begin otherwise", () => {
  const bytes = header(TXN.BEGIN);
  for (let length = 0; length < HEADER_BYTES; length++) {
    assert.equal(decodeHeader(bytes, 0, length, 0), undefined);
  }
  const text = new TextEncoder().encode("HTTP/1.1 400");
  assert.equal(decodeHeader(text, 0, 1, 0), undefined);
  expectFault(() => decodeHeader(text, 0, 2, 9), "bad-magic", 9, /does not speak kemari.*0x4854/);
});

Deno.test("unknown commands and unsafe transaction ids are refused", () => {
  for (const command of [0, 15, 255]) {
    expectFault(() => decodeHeader(header(command), 0, 20, 0), "bad-value", 2, /command/);
  }
  const bytes = header(TXN.CONTINUE);
  new DataView(bytes.buffer).setBigUint64(8, 2n ** 53n);
  expectFault(() => decodeHeader(bytes, 0, 20, 0), "bad-value", 8, /2\^53/);
});

Deno.test("HELLO survives the wire, with fields and without, known ones or not", () => {
  assert.deepEqual(decodeHello(encodeHello(HELLO), 0), HELLO);
  const fields = [1, 9999].map((tag) => ({ tag, bytes: new Uint8Array(40).fill(tag) }));
  assert.deepEqual(decodeHello(encodeHello({ ...HELLO, fields }), 0), { ...HELLO, fields });
  const wordy = decodeHello(encodeHello({ ...HELLO, software: "k".repeat(999) }), 0);
  assert.equal(wordy.software.length, 255);
});

Deno.test("HELLO cut anywhere is refused", () => {
  const bytes = encodeHello(HELLO);
  for (let length = 0; length < bytes.length; length++) {
    assert.throws(() => decodeHello(bytes.subarray(0, length), 50), WireError);
  }
});

Deno.test("HELLO of another kind is refused by what is wrong with it", () => {
  const changed = (at: number, ...values: number[]) => {
    const bytes = encodeHello(HELLO);
    bytes.set(values, at);
    return () => decodeHello(bytes, 20);
  };
  expectFault(changed(6, 10), "bad-magic", 20, /magic/);
  expectFault(changed(8, 0, 0, 0, 2), "bad-version", 28, /version 2 .* this end version 1/);
  expectFault(changed(12, 0x80), "unsupported", 32, /demands features 0x80000000/);
  expectFault(changed(40, 0, 0x20), "bad-value", 60, /2\^53/);
  expectFault(changed(48, 0x80), "bad-value", 68, /2\^53/);
  expectFault(changed(56, 9), "bad-length", 76, /name/);
  assert.equal(decodeHello(encodeHello({ ...HELLO, features: 0xfff1 }), 0).features, 0xfff1);
});

Deno.test("any bytes are a HELLO or are refused", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 90 }), fc.nat(80), fc.boolean(), (noise, at, magic) => {
      const bytes = encodeHello(HELLO);
      bytes.set(noise.subarray(0, Math.max(0, bytes.length - at)), Math.min(at, bytes.length));
      try {
        decodeHello(magic ? bytes : noise, 0);
      } catch (error) {
        assert.ok(error instanceof WireError, `${error}`);
      }
    }),
    { numRuns: 1000, seed: 5 },
  );
});

Deno.test("HELLO has so many fields, and no more", () => {
  const fields = (count: number) =>
    Array.from({ length: count }, () => ({ tag: 77, bytes: new Uint8Array(2) }));
  const told = decodeHello(encodeHello({ ...HELLO, fields: fields(MAX_HELLO_FIELDS) }), 0);
  assert.equal(told.fields?.length, MAX_HELLO_FIELDS);
  const more = encodeHello({ ...HELLO, fields: fields(MAX_HELLO_FIELDS + 1) });
  expectFault(() => decodeHello(more, 0), "bad-length", more.length - 6, /more than 256 fields/);
});
