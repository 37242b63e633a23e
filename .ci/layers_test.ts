import assert from "node:assert/strict";
import plugin from "./layers.ts";

/** The rules that object to `source` standing at `path` in the repository. */
function objections(path: string, source: string): string[] {
  const filename = new URL(`../${path}`, import.meta.url).pathname;
  return Deno.lint.runPlugin(plugin, filename, source).map((found) => found.id);
}

const ARROWS = "layers/arrows";
const NO_IO = "layers/no-io";
const NO_CLOCK = "layers/no-clock";

const cases: readonly (readonly [string, string, string, readonly string[]])[] = [
  ["the room itself", "lib/qemu/a.ts", `import "./b.ts";`, []],
  ["a room to the left", "lib/qemu/a.ts", `import { x } from "../bytes/b.ts"; x;`, []],
  ["the error tree", "lib/bytes/a.ts", `export * from "../errors.ts";`, []],
  [
    "replica over protocols",
    "lib/replica/a.ts",
    `import "../qemu/b.ts"; import "../txn/c.ts";`,
    [],
  ],
  ["cli over lab", "lib/cli/doctor.ts", `import "../lab/provision/a.ts";`, []],
  ["cli over drill", "lib/cli/drill.ts", `import "../drill/a.ts";`, []],
  ["cli over bench", "lib/cli/bench.ts", `await import("../../bench/throughput.ts");`, []],
  ["main over cli", "main.ts", `import "./lib/cli/program.ts";`, []],
  ["a test over lab", "lib/qemu/a_test.ts", `import "../lab/recording/streams.ts";`, []],
  ["a test over its help", "lib/qemu/a_test.ts", `import "./testing/b.ts";`, []],
  [
    "a test over another room's help",
    "lib/host/link/a_test.ts",
    `import "../../qemu/testing/b.ts";`,
    [],
  ],
  ["help over other help", "lib/qemu/testing/a.ts", `import "./b.ts";`, []],
  ["help over lab", "lib/qemu/testing/a.ts", `import "../../lab/recording/b.ts";`, []],
  ["bench over report", "bench/a.ts", `import "../lib/report/table.ts";`, []],
  ["report over bytes", "lib/report/a.ts", `import "../bytes/b.ts";`, []],
  ["units everywhere", "lib/decisions/a.ts", `import "../units.ts";`, []],
  ["a room of host to the left", "lib/host/link/a.ts", `import "../taps/b.ts";`, []],
  ["a command over all of host", "lib/host/send.ts", `import "./protect/b.ts";`, []],
  ["a test in host to the right", "lib/host/image/a_test.ts", `import "../taps/b.ts";`, []],
  ["data", "lib/cli/a.ts", `import x from "../../deno.json" with { type: "json" }; x;`, []],

  ["a room to the right", "lib/bytes/a.ts", `import "../qemu/b.ts";`, [ARROWS]],
  ["a protocol over another", "lib/qemu/a.ts", `import "../txn/b.ts";`, [ARROWS]],
  ["only a type of it", "lib/qmp/a.ts", `import type { X } from "../qemu/b.ts"; 1 as X;`, [ARROWS]],
  ["a type by import()", "lib/qmp/a.ts", `type X = import("../qemu/b.ts").X; 1 as X;`, [ARROWS]],
  ["by re-export", "lib/errors.ts", `export { x } from "./bytes/b.ts";`, [ARROWS]],
  ["lazily", "lib/replica/a.ts", `await import("../host/b.ts");`, [ARROWS]],
  ["host over cli", "lib/host/a.ts", `import "../cli/b.ts";`, [ARROWS]],
  ["host over lab", "lib/host/a.ts", `import "../lab/b.ts";`, [ARROWS]],
  ["a room of host to the right", "lib/host/link/a.ts", `import "../status/b.ts";`, [ARROWS]],
  ["rooms of host of one rank", "lib/host/net/a.ts", `import "../image/b.ts";`, [ARROWS]],
  ["a room of host over a command", "lib/host/protect/a.ts", `import "../send.ts";`, [ARROWS]],
  ["an unknown room of host", "lib/host/misc/a.ts", `export const x = 1;`, [ARROWS]],
  ["lab over drill", "lib/lab/a.ts", `import "../drill/b.ts";`, [ARROWS]],
  ["drill over bench", "lib/drill/a.ts", `import "../../bench/b.ts";`, [ARROWS]],
  ["the product over a test's help", "lib/qemu/a.ts", `import "./testing/b.ts";`, [ARROWS]],
  ["lab over a test's help", "lib/lab/a.ts", `import "./testing/b.ts";`, [ARROWS]],
  ["help to the right", "lib/qemu/testing/a.ts", `import "../../host/b.ts";`, [ARROWS]],
  ["report over qemu", "lib/report/a.ts", `import "../qemu/b.ts";`, [ARROWS]],
  ["host over report", "lib/host/a.ts", `import "../report/b.ts";`, [ARROWS]],
  ["a test to the right", "lib/qemu/a_test.ts", `import "../host/b.ts";`, [ARROWS]],
  ["a test", "lib/host/a.ts", `import "../qemu/b_test.ts";`, [ARROWS]],
  ["an unknown room", "lib/misc/a.ts", `export const x = 1;`, [ARROWS]],
  ["over an unknown room", "lib/cli/a.ts", `import "../misc/b.ts";`, [ARROWS]],
  ["a round-about path", "lib/qemu/a.ts", `import "../txn/b.ts";`, [ARROWS]],

  ["npm: in a file", "lib/cli/a.ts", `import "npm:commander";`, ["layers/import-map"]],
  ["a URL", "bench/a.ts", `await import("https://example.org/x.ts");`, ["layers/import-map"]],
  ["a mapped package", "lib/cli/a.ts", `import "@commander-js/extra-typings";`, []],

  ["Deno in host", "lib/host/a.ts", `Deno.pid;`, []],
  ["Deno in a test", "lib/qemu/a_test.ts", `Deno.test("x", () => {});`, []],
  ["Deno in cli", "lib/cli/a.ts", `Deno.exit(0);`, [NO_IO]],
  ["Deno by globalThis", "lib/qemu/a.ts", `globalThis.Deno.pid;`, [NO_IO]],
  ["a Deno type", "lib/txn/a.ts", `export function f(c: Deno.Conn) { return c; }`, [NO_IO]],
  ["a property called Deno", "lib/txn/a.ts", `export const f = (c: { Deno: 1 }) => c.Deno;`, []],
  ["console", "lib/cli/a.ts", `console.log(1);`, [NO_IO]],
  ["node:fs", "lib/replica/a.ts", `import "node:fs";`, [NO_IO]],
  ["node:net in cli", "lib/cli/a.ts", `await import("node:net");`, [NO_IO]],
  ["node:zlib", "lib/txn/a.ts", `import { crc32 } from "node:zlib"; crc32;`, []],

  ["the clock in a state machine", "lib/txn/a.ts", `Date.now();`, [NO_CLOCK]],
  ["a timer in a state machine", "lib/replica/a.ts", `setTimeout(() => {}, 1);`, [NO_CLOCK]],
  ["a timer in host", "lib/host/a.ts", `setTimeout(() => {}, 1);`, []],
  ["a date handed in", "lib/txn/a.ts", `export const f = (d: Date) => d.getTime();`, []],
];

for (const [what, path, source, expected] of cases) {
  const verdict = expected.length === 0 ? "allows" : "refuses";
  Deno.test(`the layer rules: ${path} ${verdict} ${what}`, () => {
    assert.deepEqual(objections(path, source), expected);
  });
}

Deno.test("the layer rules name the room, the import and the reason", () => {
  const filename = new URL("../lib/qemu/a.ts", import.meta.url).pathname;
  const [found] = Deno.lint.runPlugin(plugin, filename, `import "../txn/b.ts";`);
  assert.equal(
    found.message,
    "qemu may not import lib/txn/b.ts: rooms of one rank do not import each other",
  );
});
