import assert from "node:assert/strict";
import fc from "fast-check";
import { listStreams, loadStream } from "../lab/recording/streams.ts";
import { Carry } from "../bytes/carry.ts";
import { WireError } from "../errors.ts";
import { StreamParser } from "./stream_parser.ts";
import {
  BLOCKS,
  checkpoint,
  checkpointBody,
  concat,
  deviceState,
  FoundLog,
  fullStream,
  PAGE_BYTES,
  PING,
  VMDESC,
} from "./testing/synthetic_stream.ts";
import { COMMAND, type RamBlock } from "./wire.ts";

const TOY = concat(fullStream(1, [PING]), checkpoint(9), checkpoint(20));

/** Parses pieces, as far as they go, and ends. */
function found(pieces: Iterable<Uint8Array>, ends = true): string[] {
  const log = new FoundLog();
  const parser = new StreamParser(log);
  const carry = new Carry();
  for (const piece of pieces) {
    carry.feed(piece, 0, piece.length, (bytes, start, end) => parser.parse(bytes, start, end));
  }
  if (ends) parser.finish(carry.pendingBytes);
  return log.lines;
}

function* cut(bytes: Uint8Array, sizes: Iterable<number>): Generator<Uint8Array> {
  let at = 0;
  for (const size of sizes) {
    yield bytes.slice(at, at + size);
    at += size;
    if (at >= bytes.length) return;
  }
  yield bytes.slice(at);
}

Deno.test("a stream and its checkpoints come out in order, every byte accounted for", () => {
  const log = new FoundLog();
  const parser = new StreamParser(log);
  for (let at = 0; at < TOY.length;) at = parser.parse(TOY, at, TOY.length);
  parser.finish(0);
  assert.equal(parser.streamOffset, TOY.length);
  assert.deepEqual(log.events.map(({ kind }) => kind), [
    "header",
    "configuration",
    "command",
    "ram-blocks",
    "ram-section",
    "ram-section",
    "command",
    "ram-section",
    "device-state",
    "vmdescription",
    "stream-complete",
    ...Array(2).fill(
      ["colo", "colo", "command", "ram-section", "checkpoint-ram-end", "colo", "checkpoint"],
    ).flat(),
  ]);
  for (const event of log.events) assert.ok(event.offset <= event.endOffset);
  const ping = log.events[2];
  assert.ok(ping.kind === "command" && ping.command === COMMAND.MIG_CMD_PING);
  assert.deepEqual([...ping.data], [0, 0, 0, 7]);
  const list = log.events[3];
  assert.ok(list.kind === "ram-blocks");
  const blocks: RamBlock[] = BLOCKS.map(([name, lengthBytes]) => ({ name, lengthBytes }));
  assert.deepEqual(list.blocks, blocks);
  assert.equal(log.lines.filter((line) => line.startsWith("page")).length, 8);
  assert.equal(log.lines.filter((line) => line.startsWith("xbzrle")).length, 1);
});

Deno.test("every place to split a stream gives the same records", () => {
  const whole = found([TOY]).join("\n");
  for (let at = 1; at < TOY.length; at++) {
    assert.equal(found([TOY.subarray(0, at), TOY.subarray(at)]).join("\n"), whole, `at ${at}`);
  }
});

Deno.test("a stream byte by byte gives the same records", () => {
  const single = Array.from(TOY, (byte) => Uint8Array.of(byte));
  assert.deepEqual(found(single), found([TOY]));
});

Deno.test("recorded streams in random pieces give the same records", () => {
  for (const { name } of listStreams()) {
    if (name.includes("dirty-bitmap")) continue;
    const stream = loadStream(name);
    const whole = found([stream]);
    const sizes = fc.infiniteStream(
      fc.oneof(fc.nat(9), fc.integer({ min: 1, max: 5000 }), fc.integer({ min: 1, max: 99999 })),
    );
    const property = fc.property(sizes, (pieces) => {
      assert.deepEqual(found(cut(stream, pieces)), whole, name);
    });
    fc.assert(property, { numRuns: 4, seed: 2010 });
  }
});

Deno.test("every truncated stream is said to be truncated, where it ends", () => {
  const boundaries = new Set<number>([0]);
  const probe = new FoundLog();
  const whole = new StreamParser(probe);
  for (let at = 0; at < TOY.length;) at = whole.parse(TOY, at, TOY.length);
  for (const { kind, endOffset } of probe.events) {
    if (kind === "stream-complete" || kind === "checkpoint") boundaries.add(endOffset);
  }
  // Behind a CHECKPOINT_REQUEST, too, nothing is half said: the VM runs.
  for (const event of probe.events) {
    if (event.kind === "colo" && event.message === 1) boundaries.add(event.endOffset);
  }
  let undescribed = 0;
  for (let length = 0; length < TOY.length; length++) {
    const log = new FoundLog();
    const parser = new StreamParser(log);
    const cutShort = TOY.subarray(0, length);
    let at = 0;
    for (let next; (next = parser.parse(cutShort, at, length)) > at;) at = next;
    const complete = log.events.filter(({ kind }) =>
      kind === "stream-complete" || kind === "checkpoint"
    );
    for (const { endOffset } of complete) assert.ok(endOffset <= length);
    if (boundaries.has(length)) {
      parser.finish(length - at);
      continue;
    }
    // Where device state could have ended but its description is missing, it may have had none.
    if (parser.mayEndHere) {
      parser.finish(length - at);
      undescribed++;
      continue;
    }
    assert.throws(() => parser.finish(length - at), (error) => {
      assert.ok(error instanceof WireError, `${error}`);
      assert.deepEqual([error.fault, error.offset], ["truncated", length]);
      return true;
    });
  }
  assert.equal(undescribed, 1);
});

Deno.test("streams follow each other, and a checkpoint can be parsed on its own", () => {
  const streams = concat(fullStream(1), fullStream(2), fullStream(3));
  const log = new FoundLog();
  const parser = new StreamParser(log);
  const stops: number[] = [];
  for (let at = 0; at < streams.length;) stops.push(at = parser.parse(streams, at, streams.length));
  parser.finish(0);
  // The parser stops behind each stream: what follows may be the caller's to decide on first.
  assert.deepEqual(stops, [1, 2, 3].map((n) => n * streams.length / 3));
  assert.equal(log.events.filter(({ kind }) => kind === "stream-complete").length, 3);

  const alone = new FoundLog();
  const later = StreamParser.forCheckpoint(alone, parser.checkpointContext);
  const body = checkpointBody(5);
  assert.equal(later.parse(body, 0, body.length), body.length);
  later.finish(0);
  assert.equal(alone.events.at(-1)?.kind, "checkpoint");
  assert.equal(later.pageBytes, PAGE_BYTES);
});

/** The pass without its description, as a machine with suppress-vmdesc=on sends it. */
const SILENT = fullStream(1, [PING]).subarray(0, -VMDESC.length);

Deno.test("a stream without a description ends with its input", () => {
  const stream = loadStream("plain-11.1-no-vmdesc");
  const log = new FoundLog();
  const parser = new StreamParser(log);
  assert.equal(parser.parse(stream, 0, stream.length), stream.length);
  assert.ok(parser.inDeviceState && parser.mayEndHere);
  parser.finish(0);
  assert.deepEqual(log.events.slice(-2).map(({ kind }) => kind), [
    "device-state",
    "stream-complete",
  ]);
  assert.equal(log.events.at(-1)!.endOffset, stream.length);
  const state = log.events.find((event) => event.kind === "device-state")!;
  assert.ok(state.sections.length > 20);
  assert.deepEqual([...state.sections[0].fields()], []);
});

Deno.test("a first pass without a description ends when that is said, and checkpoints follow", () => {
  const log = new FoundLog();
  const parser = new StreamParser(log);
  parser.parse(SILENT, 0, SILENT.length);
  assert.ok(!log.events.some(({ kind }) => kind === "stream-complete"));
  parser.endState();
  assert.ok(parser.atBoundary);
  const later = concat(checkpoint(9), checkpoint(20));
  assert.equal(parser.parse(later, 0, later.length), later.length);
  parser.finish(0);
  assert.equal(log.events.filter(({ kind }) => kind === "checkpoint").length, 2);
  assert.deepEqual(parser.checkpointContext.sections.map(({ name }) => name), ["dev"]);
});

Deno.test("a state that is said to end, and is no whole one, is refused and goes on", () => {
  const log = new FoundLog();
  const parser = new StreamParser(log);
  const cut = SILENT.length - 3;
  parser.parse(SILENT, 0, cut);
  assert.ok(!parser.mayEndHere);
  assert.throws(() => parser.endState(), (error) => {
    assert.ok(error instanceof WireError);
    assert.equal(error.fault, "truncated");
    return true;
  });
  parser.parse(SILENT, cut, SILENT.length);
  parser.endState();
  assert.equal(log.events.at(-1)!.kind, "stream-complete");
  assert.throws(() => parser.endState(), /said to end inside the place between streams/);
});

Deno.test("a state that goes on behind its supposed end is told as that", () => {
  const parser = new StreamParser(new FoundLog());
  parser.parse(SILENT, 0, SILENT.length);
  parser.endState();
  const more = deviceState(3);
  assert.throws(() => parser.parse(more, 0, more.length), (error) => {
    assert.ok(error instanceof WireError);
    assert.deepEqual([error.fault, error.offset], ["bad-order", SILENT.length]);
    assert.match(error.message, /goes on \(byte 0x4\) behind what was taken for its end/);
    return true;
  });
});

Deno.test("only in a recording does what follows a state end it", () => {
  const file = concat(SILENT, checkpoint(9), SILENT, SILENT);
  const recorded = new FoundLog();
  const parser = new StreamParser(recorded, { isRecording: true });
  for (let at = 0; at < file.length;) at = parser.parse(file, at, file.length);
  parser.finish(0);
  const kinds = recorded.events.map(({ kind }) => kind);
  assert.equal(kinds.filter((kind) => kind === "stream-complete").length, 3);
  assert.equal(kinds.filter((kind) => kind === "checkpoint").length, 1);
  // A guest can have a device hold such bytes.
  const live = new StreamParser(new FoundLog());
  live.parse(file, 0, file.length);
  assert.ok(live.inDeviceState);
  assert.throws(() => live.finish(0), /several streams in a row[^]*unsupported/);
});

Deno.test("shared RAM is announced with addresses and sends no pages of its own", () => {
  const log = new FoundLog();
  const parser = new StreamParser(log);
  const stream = loadStream("plain-11.1-shared-ram");
  parser.parse(stream, 0, stream.length);
  parser.finish(0);
  const config = log.events.find((event) => event.kind === "configuration");
  assert.deepEqual(config?.configuration.capabilities, ["x-ignore-shared"]);
  const list = log.events.find((event) => event.kind === "ram-blocks");
  assert.equal(list?.blocks[0].name, "pc.ram");
  assert.ok(!log.lines.some((line) => /^(page|fill) 0 /.test(line)));
});

Deno.test("a recorded stream with dirty bitmaps is refused by that name", () => {
  assert.throws(
    () => found([loadStream("plain-11.1-dirty-bitmap")]),
    /iterable section "dirty-bitmap" \(unsupported\)/,
  );
});
