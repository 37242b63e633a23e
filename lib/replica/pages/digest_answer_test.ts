import assert from "node:assert/strict";
import { WireError } from "../../errors.ts";
import { concat, u32, u64 } from "../../qemu/testing/synthetic_stream.ts";
import { DigestAnswer } from "./digest_answer.ts";

const PAGE_BYTES = 512;
const OWN = [{ name: "a", lengthBytes: 8 * PAGE_BYTES }, { name: "b", lengthBytes: PAGE_BYTES }];

/** A run of digests that are all bytes of 7; a block's announcement without any. */
function run(name: string, first: number | bigint, count: number, digests = count): Uint8Array {
  return concat(name.length, name, u64(first), u32(count), new Uint8Array(16 * digests).fill(7));
}
const A = run("a", 8, 0);
const B = run("b", 1, 0);

function received(...parts: readonly Uint8Array[]): DigestAnswer {
  const answer = new DigestAnswer(OWN, PAGE_BYTES);
  for (const part of parts) answer.receive(part);
  return answer;
}

Deno.test("of the sender's own blocks all is kept, in whatever frames it comes", () => {
  const digest = new Uint8Array(16).fill(7);
  for (
    const parts of [[A, run("a", 2, 3), run("a", 7, 1), B], [
      concat(A, run("a", 2, 1), run("a", 3, 2), run("a", 7, 1), B),
    ]]
  ) {
    const { table } = received(...parts);
    const known = [0, 1, 2, 3, 4, 5, 6, 7].filter((page) => table!.matches("a", page, digest));
    assert.deepEqual(known, [2, 3, 4, 7]);
    assert.ok(table!.isZero("b", 0));
  }
});

Deno.test("of a replica with other blocks nothing is of use", () => {
  const cases = [
    [],
    [A],
    [B, A],
    [A, B, run("c", 1, 0)],
    [run("a", 9, 0), run("a", 0, 9), B],
    [A, run("x", 1, 0)],
  ];
  for (const parts of cases) assert.equal(received(...parts).table, undefined);
});

Deno.test("an answer that does not add up is refused", () => {
  for (let length = 1; length < A.length; length++) {
    assert.throws(() => received(A.subarray(0, length)), WireError);
  }
  const bad: readonly (readonly [readonly Uint8Array[], RegExp])[] = [
    [[A, run("a", 0, 2, 1)], /ends inside a run/],
    [[A, run("a", 7, 2)], /pages 7 to 9 of block "a", awaited were pages from 0 to 8/],
    [[run("a", 0, 1)], /awaited were pages from 0 to 0/],
    [[A, run("a", 3, 1), run("a", 3, 1)], /awaited were pages from 4 to 8/],
    [[A, run("a", 3, 1), run("a", 0, 1)], /awaited were pages from 4 to 8/],
    [[A, B, run("a", 3, 1)], /awaited were pages from 0 to 1 of block "b"/],
    [[A, A], /"a" announced twice/],
    [[concat(0, A.subarray(2))], /without a name/],
    [[run("a", 2n ** 53n, 0)], /page 9007199254740992, which is not below 2\^53/],
    [[run("a", 2 ** 40, 0)], /block "a" of 1099511627776 pages \(too-large\)/],
    [
      Array.from({ length: 1025 }, (_, i) => run(`block${i}`, 1, 0)),
      /block "block1024" of 1 pages \(too-large\)/,
    ],
  ];
  for (const [parts, said] of bad) assert.throws(() => received(...parts), said);
});

Deno.test("what is told of blocks that the sender does not have takes no memory", () => {
  const answer = new DigestAnswer(OWN, PAGE_BYTES);
  answer.receive(run("huge", 2 ** 32, 0));
  const before = Deno.memoryUsage();
  const held = ({ heapUsed, external }: Deno.MemoryUsage) => heapUsed + external;
  // A page here and a page there, over a terabyte: with a leaf for each, 2 GiB.
  for (let n = 0; n < 32_768; n++) answer.receive(run("huge", n * 65_536, 1));
  assert.ok(held(Deno.memoryUsage()) - held(before) < 64 * 2 ** 20);
  assert.equal(answer.table, undefined);
});
