import assert from "node:assert/strict";
import { UsageError } from "../../errors.ts";
import { parseAddress } from "./address.ts";

Deno.test("addresses are read as the command line writes them", () => {
  const cases: [string, Record<string, unknown>][] = [
    ["host:4000", { kind: "tcp", host: "host", port: 4000 }],
    ["tcp:host:4000", { kind: "tcp", host: "host", port: 4000 }],
    ["10.0.0.2:1", { kind: "tcp", host: "10.0.0.2", port: 1 }],
    [":4000", { kind: "tcp", host: "0.0.0.0", port: 4000 }],
    ["tcp::4000", { kind: "tcp", host: "0.0.0.0", port: 4000 }],
    ["[::1]:65535", { kind: "tcp", host: "::1", port: 65535 }],
    ["tcp:[fe80::1%eth0]:0", { kind: "tcp", host: "fe80::1%eth0", port: 0 }],
    ["tcp:4000:4000", { kind: "tcp", host: "4000", port: 4000 }],
    ["unix:/run/k.sock", { kind: "unix", path: "/run/k.sock" }],
    ["unix:a b:c", { kind: "unix", path: "a b:c" }],
    ["unix:" + "x".repeat(107), { kind: "unix", path: "x".repeat(107) }],
    ["exec:ssh host kemari recv stdio:", { kind: "exec", command: "ssh host kemari recv stdio:" }],
    ["exec: nc h 1", { kind: "exec", command: " nc h 1" }],
    ["stdio:", { kind: "stdio" }],
    ["-", { kind: "stdio" }],
  ];
  for (const [text, expected] of cases) {
    assert.deepEqual(parseAddress(text), { ...expected, text }, text);
  }
});

Deno.test("what is no address is refused, with the forms there are", () => {
  const wrong = [
    "",
    "host",
    "4000",
    "host:",
    "host:port",
    "host:-1",
    "host:65536",
    "host:99999999999",
    "::1:4000",
    "[::1]",
    "[::1]4000",
    "[fe80::1%]:4000",
    "[fe80::1%a%b]:4000",
    "udp:host:4000",
    "unix:",
    "unix:" + "x".repeat(108),
    "unix:" + "é".repeat(60),
    "exec:",
    "exec:  ",
    "http://host:80/",
    "host:4000/path",
  ];
  for (const text of wrong) {
    assert.throws(() => parseAddress(text), (error) => {
      assert.ok(error instanceof UsageError, text);
      return text.includes("65536") || text.includes("9999999") || /HOST:PORT/.test(error.hint!) ||
        /port/.test(error.hint ?? "");
    }, text);
  }
});
