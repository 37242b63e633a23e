import assert from "node:assert/strict";
import { UsageError } from "../errors.ts";
import {
  chooseSecurity,
  expectedNames,
  isAddress,
  isLoopback,
  type LinkSecurity,
  listeningAt,
  mayBePlain,
  type SecurityOptions,
  securityOptions,
} from "./link_security.ts";

const CHOICES: readonly (readonly [SecurityOptions, LinkSecurity | RegExp])[] = [
  [{}, { kind: "plain", crossesNetworks: false }],
  [{ plain: false }, { kind: "plain", crossesNetworks: false }],
  [{ plain: true }, { kind: "plain", crossesNetworks: true }],
  [{ key: "k" }, { kind: "key", file: "k" }],
  [{ tlsDir: "d" }, { kind: "certificates", folder: "d", names: [] }],
  [{ tlsDir: "d", tlsName: ["a", "b"] }, { kind: "certificates", folder: "d", names: ["a", "b"] }],
  [{ tlsDir: "d", tlsName: ["10.0.0.1"] }, {
    kind: "certificates",
    folder: "d",
    names: ["10.0.0.1"],
  }],
  [{ key: "k", plain: true }, /--key and --plain exclude each other/],
  [{ key: "k", tlsDir: "d" }, /--key and --tls-dir exclude each other/],
  [{ tlsDir: "d", plain: true }, /--tls-dir and --plain exclude each other/],
  [{ tlsName: ["a"] }, /--tls-name is about certificates/],
  [{ key: "k", tlsName: ["a"] }, /--tls-name is about certificates/],
  [{ tlsDir: "d", tlsName: ["a", "::1"] }, /--tls-name takes one IP address/],
];

for (const [options, wanted] of CHOICES) {
  Deno.test(`a link's security from ${JSON.stringify(options)}`, () => {
    if (wanted instanceof RegExp) {
      assert.throws(() => chooseSecurity(options), (error) => {
        return error instanceof UsageError && wanted.test(error.message);
      });
    } else {
      assert.deepEqual(chooseSecurity(options), wanted);
      assert.deepEqual(chooseSecurity(securityOptions(wanted)), wanted);
    }
  });
}

const V6 = (...last: number[]) => Uint8Array.from([...Array(16 - last.length).fill(0), ...last]);

const ADDRESSES: readonly (readonly [string, Uint8Array, boolean])[] = [
  ["127.0.0.1", Uint8Array.of(127, 0, 0, 1), true],
  ["127.255.1.2", Uint8Array.of(127, 255, 1, 2), true],
  ["0.0.0.0", Uint8Array.of(0, 0, 0, 0), false],
  ["10.127.0.1", Uint8Array.of(10, 127, 0, 1), false],
  ["128.0.0.1", Uint8Array.of(128, 0, 0, 1), false],
  ["::1", V6(1), true],
  ["::", V6(), false],
  ["::2", V6(2), false],
  ["::7f00:1, which is not IPv4", V6(127, 0, 0, 1), false],
  ["::ffff:127.0.0.1", V6(0xff, 0xff, 127, 0, 0, 1), true],
  ["::ffff:10.0.0.1", V6(0xff, 0xff, 10, 0, 0, 1), false],
  ["fe80::1", Uint8Array.of(0xfe, 0x80, ...Array(13).fill(0), 1), false],
];

for (const [text, ip, loopback] of ADDRESSES) {
  Deno.test(`${text} is ${loopback ? "" : "not "}loopback, and is plain with --plain or as that`, () => {
    assert.equal(isLoopback(ip), loopback);
    assert.equal(mayBePlain(chooseSecurity({}), ip), loopback);
    assert.equal(mayBePlain(chooseSecurity({ plain: true }), ip), true);
    assert.equal(mayBePlain(chooseSecurity({ key: "k" }), ip), true);
    for (const takesSessionKeys of [false, true]) {
      for (const told of [{ key: "k" }, { tlsDir: "d" }, { plain: true }]) {
        assert.equal(listeningAt(chooseSecurity(told), ip, takesSessionKeys), "as-told");
      }
      const wanted = loopback ? "as-told" : takesSessionKeys ? "session-keys" : "refused";
      assert.equal(listeningAt(chooseSecurity({}), ip, takesSessionKeys), wanted);
    }
  });
}

Deno.test("a sender expects the name it was told, or its target's", () => {
  const any = { kind: "certificates", folder: "d", names: [] } as const;
  assert.deepEqual(expectedNames(any, "host2"), ["host2"]);
  assert.deepEqual(expectedNames(any, "fe80::1%eth0"), ["fe80::1"]);
  assert.deepEqual(expectedNames({ ...any, names: ["b"] }, "host2"), ["b"]);
  assert.deepEqual(expectedNames({ ...any, names: ["b"] }, undefined), ["b"]);
  assert.throws(() => expectedNames(any, undefined), /no host's name/);
});

Deno.test("an IP address is told from a host's name", () => {
  for (const text of ["10.0.0.1", "::1", "fe80::1"]) assert.ok(isAddress(text), text);
  for (const text of ["host", "10.example", "a.b.c.d", "1.2.3"]) assert.ok(!isAddress(text), text);
});
