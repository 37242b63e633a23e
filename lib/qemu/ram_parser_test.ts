import assert from "node:assert/strict";
import { CONFIGURED, expectFault, type FaultCase, parse, RAM_OPEN } from "./testing/fault_cases.ts";
import type { RamRecord } from "./ram_record.ts";
import { StreamParser } from "./stream_parser.ts";
import {
  BLOCKS,
  capabilities,
  command,
  concat,
  configuration,
  deviceState,
  FoundLog,
  HEADER,
  memSize,
  name,
  page,
  PAGE_BYTES,
  pageOf,
  ramSection,
  record,
  u16,
  u64,
  VMDESC,
  xbzrle,
  zero,
} from "./testing/synthetic_stream.ts";
import { COMMAND, LIMITS, RAM_SAVE_FLAG } from "./wire.ts";

const LISTED = [CONFIGURED, RAM_OPEN, memSize()];
const { CONTINUE, EOS: EOS_FLAG, HOOK, MEM_SIZE, PAGE, XBZRLE, ZERO } = RAM_SAVE_FLAG;

/** A RAM record for the first page of pc.ram with these flags. */
const first = (flags: number) => [record(0, flags), name("pc.ram")];
const many = Array.from({ length: LIMITS.blocks + 1 }, (_, i) => [`b${i}`, PAGE_BYTES] as const);

const CASES: readonly FaultCase[] = [
  {
    of: "an EOS that is more than that",
    good: LISTED,
    bad: [record(PAGE_BYTES, EOS_FLAG)],
    fault: "bad-value",
    message: /EOS/,
  },
  {
    of: "2^60 bytes of RAM",
    good: [CONFIGURED, RAM_OPEN],
    bad: [record(2n ** 60n, MEM_SIZE)],
    fault: "too-large",
    message: /11529215046068\d+ bytes of RAM/,
  },
  {
    of: "no RAM",
    good: [CONFIGURED, RAM_OPEN],
    bad: [record(0, MEM_SIZE)],
    fault: "bad-length",
    message: /no RAM/,
  },
  {
    of: "a second list of blocks",
    good: LISTED,
    bad: [memSize()],
    fault: "bad-order",
    message: /second list/,
  },
  {
    of: "too many blocks",
    good: [CONFIGURED, RAM_OPEN, memSize(many).subarray(0, -(1 + "b1024".length + 8) - 1)],
    bad: [0],
    at: 1,
    fault: "too-large",
    message: /more than 1024/,
  },
  {
    of: "a block listed twice",
    good: [CONFIGURED, RAM_OPEN, record(2 * PAGE_BYTES, MEM_SIZE), name("a"), u64(PAGE_BYTES)],
    bad: [name("a"), u64(PAGE_BYTES)],
    fault: "bad-value",
    message: /a is listed twice/,
  },
  {
    of: "a block without a name",
    good: [CONFIGURED, RAM_OPEN, record(PAGE_BYTES, MEM_SIZE)],
    bad: [0, u64(PAGE_BYTES)],
    fault: "bad-length",
    message: /without a name/,
  },
  ...[0, 100, 2 * PAGE_BYTES, 2n ** 63n].map((lengthBytes): FaultCase => ({
    of: `a block of ${lengthBytes} bytes`,
    good: [CONFIGURED, RAM_OPEN, record(PAGE_BYTES, MEM_SIZE), name("a")],
    bad: [u64(lengthBytes)],
    fault: "bad-length",
    message: /block a of/,
  })),
  {
    of: "more pages than there are numbers",
    good: [CONFIGURED, RAM_OPEN, record(2n ** 43n, MEM_SIZE), name("a")],
    bad: [u64(2n ** 43n)],
    fault: "too-large",
    message: /4294967296 pages/,
  },
  {
    of: "an unknown block",
    good: [LISTED, record(0, ZERO), 3],
    bad: ["vga", 0],
    fault: "bad-value",
    message: /"vga", never listed/,
  },
  {
    of: "a page of a block without a name",
    good: [LISTED, record(0, ZERO)],
    bad: [0, 0],
    at: 1,
    fault: "bad-value",
    message: /"", never listed/,
  },
  {
    of: "a page beyond its block",
    good: LISTED,
    bad: [record(8 * PAGE_BYTES, ZERO), name("pc.ram"), 0],
    fault: "bad-value",
    message: /8192 lies outside block pc.ram/,
  },
  {
    of: "a page at 2^63",
    good: LISTED,
    bad: [record(2n ** 63n, PAGE), name("pc.ram")],
    fault: "bad-value",
    message: /lies outside/,
  },
  {
    of: "a page that continues nothing",
    good: LISTED,
    bad: [record(0, PAGE | CONTINUE)],
    fault: "bad-order",
    message: /before any was named/,
  },
  {
    of: "a page before the list",
    good: [CONFIGURED, RAM_OPEN, record(0, PAGE), 6],
    bad: ["pc.ram"],
    fault: "bad-value",
    message: /never listed/,
  },
  ...[0, 0x01, 0x100, PAGE | ZERO].map((flags): FaultCase => ({
    of: `RAM flags 0x${flags.toString(16)}`,
    good: LISTED,
    bad: first(flags),
    fault: "unsupported",
    message: new RegExp(`flags 0x${flags.toString(16)} `),
  })),
  {
    of: "XBZRLE in another encoding",
    good: [LISTED, first(XBZRLE)],
    bad: [2, u16(4)],
    fault: "unsupported",
    message: /encoding 2/,
  },
  {
    of: "XBZRLE longer than a page",
    good: [LISTED, first(XBZRLE), 1],
    bad: [u16(PAGE_BYTES + 1)],
    fault: "bad-length",
    message: /1025 bytes/,
  },
];

for (const each of CASES) {
  Deno.test(`${each.of} is refused where it stands`, () => expectFault(each));
}

Deno.test("HOOK and MULTIFD_FLUSH are told to the visitor, who refuses them", () => {
  const log = new FoundLog();
  parse(
    concat(
      CONFIGURED,
      ramSection("START", memSize()),
      ramSection("END", record(0, HOOK), record(0, RAM_SAVE_FLAG.MULTIFD_FLUSH)),
      deviceState(1),
      VMDESC,
    ),
    log,
  ).finish(0);
  assert.deepEqual(log.lines.filter((line) => line.startsWith("mark")).length, 2);
});

Deno.test("with postcopy advised, blocks of huge pages come with a page size", () => {
  const advise = command(COMMAND.MIG_CMD_POSTCOPY_ADVISE, u64(PAGE_BYTES), u64(2 ** 21));
  const streamWith = (hugeBytes: number) =>
    concat(
      [HEADER, configuration(), advise],
      ramSection(
        "START",
        record(2 ** 21 + PAGE_BYTES, MEM_SIZE),
        [name("huge"), u64(2 ** 21), u64(hugeBytes)],
        [name("small"), u64(PAGE_BYTES)],
      ),
      ramSection("END", record(3 * PAGE_BYTES, PAGE), name("huge"), pageOf(1), zero(0, "small")),
      [deviceState(1), VMDESC],
    );
  const stream = streamWith(2 ** 21);
  for (let at = 1; at < 300; at++) {
    const log = new FoundLog();
    const parser = new StreamParser(log);
    parser.parse(stream, parser.parse(stream, 0, at), stream.length);
    parser.finish(stream.length - parser.streamOffset);
    const blocks = log.events.find((event) => event.kind === "ram-blocks")!.blocks;
    assert.deepEqual(blocks.map(({ name }) => name), ["huge", "small"]);
    assert.equal(log.lines.filter((line) => /^(page|fill)/.test(line)).length, 2);
  }
  assert.throws(() => parse(streamWith(3 * PAGE_BYTES)), /pages of 3072 bytes/);
});

Deno.test("with x-ignore-shared, every block comes with an address; with postcopy too, nothing", () => {
  const shared = configuration("toy", 10, capabilities("x-ignore-shared"));
  const list = concat(
    record(11 * PAGE_BYTES, MEM_SIZE),
    BLOCKS.map(([block, lengthBytes]) => [name(block), u64(lengthBytes), u64(0xdead0000)]),
  );
  const ram = [ramSection("START", list), ramSection("END", page(0, 1, "rom"))];
  const log = new FoundLog();
  parse(concat(HEADER, shared, ram, deviceState(1), VMDESC), log).finish(0);
  assert.equal(log.events.find((event) => event.kind === "ram-blocks")!.blocks.length, 2);
  assert.throws(
    () => parse(concat(HEADER, shared, command(COMMAND.MIG_CMD_POSTCOPY_ADVISE), ram)),
    /postcopy together with x-ignore-shared/,
  );
});

Deno.test("a record tells its whole extent, and where its content stands, in one object for all", () => {
  const pages = [page(0, 1, "pc.ram"), zero(7), page(0, 2, "rom"), zero(1), page(1, 3, "pc.ram")];
  const difference = xbzrle(1, Uint8Array.of(2, 1, 0xaa));
  const before = concat(LISTED);
  const records = concat(pages, difference);
  const stream = concat(before, records, record(0, EOS_FLAG));
  const found: RamRecord[] = [];
  const objects = new Set<RamRecord>();
  const parser = new StreamParser({
    event() {},
    page(record) {
      assert.equal(record.bytes, stream, "nothing was copied");
      found.push({ ...record });
      objects.add(record);
    },
    mark() {},
  });
  parser.parse(stream, 0, stream.length);
  assert.equal(objects.size, 1);
  assert.deepEqual(
    found.map(({ kind, block, pageOffset, named }) => {
      return `${kind} ${block} ${pageOffset / PAGE_BYTES}${named ? " named" : ""}`;
    }),
    ["page 0 0 named", "fill 0 7", "page 1 0 named", "fill 1 1", "page 0 1 named", "xbzrle 0 1"],
  );
  let at = before.length;
  for (const record of found) {
    assert.equal(record.offset, at, "it begins where the one before ends");
    assert.equal(record.at + record.lengthBytes, record.endOffset, "its content is its end");
    at = record.endOffset;
  }
  assert.equal(at, before.length + records.length);
  assert.deepEqual(found.map(({ lengthBytes }) => lengthBytes), [
    ...[PAGE_BYTES, 1, PAGE_BYTES, 1, PAGE_BYTES],
    3,
  ]);
});
