import assert from "node:assert/strict";
import { loadStream } from "../lib/lab/recording/streams.ts";
import { StreamParser } from "../lib/qemu/stream_parser.ts";
import { Replica } from "../lib/replica/secondary/replica.ts";
import { plainStream, plainStreamShape, writePlainStream } from "./plain_stream.ts";
import machine from "./machine_state.json" with { type: "json" };

const RAM_BYTES = 9 * 2 ** 20;

/** The stream in one array; the generator uses its memory again. */
function joined(ramBytes: number): Uint8Array {
  const pieces = [...plainStream(plainStreamShape(ramBytes)).map((piece) => piece.slice())];
  const bytes = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

Deno.test("a generated stream parses to its last byte, with every page of the big block", () => {
  const bytes = joined(RAM_BYTES);
  const pages = new Map<number, number>();
  const kinds: string[] = [];
  let devices = 0;
  const parser = new StreamParser({
    event(event) {
      kinds.push(event.kind);
      if (event.kind === "device-state") devices = event.sections.length;
    },
    page({ kind, block }) {
      assert.notEqual(kind, "xbzrle", "no XBZRLE was made");
      if (kind === "page") pages.set(block, (pages.get(block) ?? 0) + 1);
    },
    mark: () => assert.fail("no mark was made"),
  });
  let at = 0;
  while (at < bytes.length) {
    const next = parser.parse(bytes, at, bytes.length);
    assert.ok(next > at);
    at = next;
  }
  parser.finish(0);
  assert.deepEqual([...pages], [[0, RAM_BYTES / 4096]]);
  assert.equal(kinds.at(-1), "stream-complete");
  assert.ok(devices > 10);
});

Deno.test("a replica takes a generated stream and composes one of the same length", () => {
  const bytes = joined(RAM_BYTES);
  const replica = new Replica(2 * RAM_BYTES);
  replica.begin({ full: true, based: false });
  replica.receive(bytes, 0, bytes.length);
  assert.equal(replica.commit(1).pages, RAM_BYTES / 4096);
  let composed = 0;
  for (const piece of replica.compose()) composed += piece.length;
  assert.equal(composed, bytes.length);
});

Deno.test("the machine around the pages is the recorded one", () => {
  const recorded = loadStream(machine.source);
  const generated = joined(4096);
  // Device state and description stand at the end of both.
  const tail = generated.length - 90_000;
  assert.deepEqual(generated.subarray(tail), recorded.subarray(recorded.length - 90_000));
});

Deno.test("writePlainStream says how long the file is", async () => {
  const path = await Deno.makeTempFile({ prefix: "kemari-bench-" });
  try {
    const { signal } = new AbortController();
    const written = await writePlainStream(path, plainStreamShape(4096), signal);
    assert.equal(Deno.statSync(path).size, written);
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("RAM is whole pages", () => {
  assert.throws(() => plainStreamShape(4097), /no whole number of pages/);
});
