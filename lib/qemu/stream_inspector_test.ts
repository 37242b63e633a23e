import assert from "node:assert/strict";
import { listStreams, loadStream, type StreamInfo } from "../lab/recording/streams.ts";
import { Carry } from "../bytes/carry.ts";
import { WireError } from "../errors.ts";
import type { PageTally } from "./page_census.ts";
import { recordedCheckpoints, recordedPass } from "./testing/recorded_state.ts";
import {
  type FindingSink,
  type SectionFinding,
  StreamInspector,
  type StreamSummary,
} from "./stream_inspector.ts";
import { StreamParser } from "./stream_parser.ts";
import {
  checkpoint,
  concat,
  deviceState,
  fullStream,
  PING,
  REQUEST,
  SEND,
  VMDESC,
} from "./testing/synthetic_stream.ts";

class Findings implements FindingSink {
  readonly begun: [number, number][] = [];
  readonly sections: SectionFinding[] = [];
  readonly streams: StreamSummary[] = [];

  beginStream(number: number, offset: number): void {
    this.begun.push([number, offset]);
  }
  section(finding: SectionFinding): void {
    this.sections.push(finding);
  }
  endStream(summary: StreamSummary): void {
    this.streams.push(summary);
  }
}

/** Inspects a file as kemari inspect does. */
function inspect(file: Uint8Array): Findings & { fault?: WireError } {
  const findings: Findings & { fault?: WireError } = new Findings();
  const inspector: StreamInspector = new StreamInspector(findings, () => parser);
  const parser: StreamParser = new StreamParser(inspector, { isRecording: true });
  const carry = new Carry();
  try {
    carry.feed(file, 0, file.length, (bytes, start, end) => parser.parse(bytes, start, end));
    parser.finish(carry.pendingBytes);
  } catch (error) {
    assert.ok(error instanceof WireError, String(error));
    findings.fault = error;
  }
  inspector.end(Math.max(parser.streamOffset, findings.fault?.offset ?? 0));
  return findings;
}

/** Asserts that each section begins where the one before it ended. */
function assertGapless(sections: readonly SectionFinding[], endOffset: number, label: string) {
  let at = 0;
  for (const { kind, offset, sizeBytes } of sections) {
    assert.equal(offset, at, `${label}: ${kind} at ${offset}`);
    at += sizeBytes;
  }
  assert.equal(at, endOffset, label);
}

interface Counted extends PageTally {
  readonly pagesOf: Map<string, Set<bigint>>;
}

/**
 * Counts a recording's RAM records without the parser. Knows what the recordings contain: pages of
 * 4 KiB, one stream.
 */
function countPages(stream: Uint8Array, info: StreamInfo): Counted {
  const view = new DataView(stream.buffer, stream.byteOffset, stream.byteLength);
  const counted = { pages: 0, zeroPages: 0, fillPages: 0, xbzrlePages: 0, pagesOf: new Map() };
  const addressed = info.capabilities.includes("x-ignore-shared");
  let block = "";
  const textAt = (at: number) => {
    return new TextDecoder().decode(stream.subarray(at + 1, at + 1 + stream[at]));
  };
  const records = (at: number): number => {
    for (;;) {
      const header = view.getBigUint64(at);
      const flags = Number(header & 0xfffn);
      at += 8;
      if ((flags & 0x10) !== 0) return at + 5;
      if ((flags & 0x04) !== 0) {
        for (let left = header & ~0xfffn; left > 0n; at += addressed ? 16 : 8) {
          at += 1 + stream[at];
          left -= view.getBigUint64(at);
        }
        continue;
      }
      if ((flags & 0x20) === 0) {
        block = textAt(at);
        at += 1 + stream[at];
      }
      if (!counted.pagesOf.has(block)) counted.pagesOf.set(block, new Set());
      counted.pagesOf.get(block).add(header >> 12n);
      if ((flags & 0x02) !== 0) {
        if (stream[at] === 0) counted.zeroPages++;
        else counted.fillPages++;
        at += 1;
      } else if ((flags & 0x08) !== 0) {
        counted.pages++;
        at += 4096;
      } else {
        assert.ok((flags & 0x40) !== 0, `flags ${flags}`);
        counted.xbzrlePages++;
        at += 3 + view.getUint16(at + 1);
      }
    }
  };
  const sections = (at: number) => {
    for (;;) {
      const kind = stream[at];
      if (kind === 0x07) {
        at += 5 + view.getUint32(at + 1);
        for (; stream[at] === 0x05; at = subsectionEnd(at));
      } else if (kind === 0x08) at += 5 + view.getUint16(at + 3);
      else if (kind === 0x01) at = records(at + 14 + stream[at + 5]);
      else if (kind === 0x02 || kind === 0x03) at = records(at + 5);
      else return;
    }
  };
  const subsectionEnd = (at: number) => {
    const name = textAt(at + 1);
    const body = at + 6 + stream[at + 1];
    if (name === "configuration/uuid") return body + 16;
    assert.equal(name, "configuration/capabilities");
    let end = body + 4;
    for (let left = view.getUint32(body); left > 0; left--) end += 1 + stream[end];
    return end;
  };
  sections(8);
  if (info.kind === "colo") {
    const { json, jsonOffset } = recordedPass(stream);
    let at = jsonOffset + json.length;
    for (const state of recordedCheckpoints(stream)) {
      sections(at + 8);
      at = state.offset + state.state.length;
    }
  }
  return counted;
}

/** Recordings that are there to be refused. */
const REFUSED = new Map([
  ["plain-11.1-dirty-bitmap", "unsupported"],
]);

for (const info of listStreams()) {
  const { name, kind } = info;
  Deno.test(`inspecting ${name} accounts for every byte and every page`, () => {
    const stream = loadStream(name);
    const { sections, streams, fault } = inspect(stream);
    assert.equal(fault?.fault, REFUSED.get(name));
    assertGapless(sections, fault === undefined ? stream.length : fault.offset, name);
    const [summary] = streams;
    assert.equal(streams.length, 1);
    assert.equal(summary.complete, fault === undefined);
    if (name === "plain-11.1-dirty-bitmap") return;
    assert.equal(summary.kind, kind === "colo" && info.checkpoints! > 0 ? "colo" : "plain");
    assert.equal(summary.checkpoints, info.checkpoints ?? 0);
    const counted = countPages(stream, info);
    const sums = { pages: 0, zeroPages: 0, fillPages: 0, xbzrlePages: 0 };
    for (const block of summary.blocks) {
      for (const form of Object.keys(sums) as (keyof PageTally)[]) sums[form] += block[form];
      const distinct = counted.pagesOf.get(block.name)?.size ?? 0;
      assert.equal(block.distinctPages, distinct, block.name);
      const sent = block.pages + block.zeroPages + block.fillPages + block.xbzrlePages;
      assert.equal(block.duplicatePages, sent - distinct, block.name);
    }
    const { pagesOf: _, ...expected } = counted;
    assert.deepEqual(sums, expected);
    const bySection = { pages: 0, zeroPages: 0, fillPages: 0, xbzrlePages: 0 };
    for (const section of sections) {
      if (section.kind !== "ram") continue;
      for (const form of Object.keys(sums) as (keyof PageTally)[]) {
        bySection[form] += section[form];
      }
    }
    assert.deepEqual(bySection, expected);
  });

  if (REFUSED.has(name) || name.includes("no-vmdesc")) continue;
  Deno.test(`inspecting ${name} decodes the devices that its description names`, () => {
    const stream = loadStream(name);
    const { sections } = inspect(stream);
    // These have one JSON, at the end of the first pass.
    const described = sections.find((section) => section.kind === "vmdescription")!;
    const start = described.offset + 5;
    const json = stream.subarray(start, described.offset + described.sizeBytes);
    const { devices } = JSON.parse(new TextDecoder().decode(json));
    const expected = devices.map((device: { name: string; instance_id: number }) => {
      return `${device.name} ${device.instance_id}`;
    });
    const found = (number?: number) =>
      sections.filter((section) => section.kind === "device" && section.checkpoint === number)
        .map((section) => section.kind === "device" ? `${section.name} ${section.instance}` : "");
    assert.deepEqual(found(), expected);
    for (let number = 1; number <= (info.checkpoints ?? 0); number++) {
      assert.deepEqual(found(number), expected, `checkpoint ${number}`);
    }
    for (const section of sections) {
      if (section.kind !== "device") continue;
      let at = section.offset + 14 + section.name.length;
      for (const field of section.fields()) {
        assert.equal(field.offset, at, `${section.name} ${field.name}`);
        at += field.sizeBytes;
      }
      assert.equal(at, section.offset + section.sizeBytes - 5, section.name);
    }
  });
}

const PASS = fullStream(1, [PING]);
const TOY = concat(PASS, checkpoint(9), checkpoint(20), fullStream(3));

Deno.test("streams back to back are numbered, and so are their checkpoints", () => {
  const { begun, streams, sections } = inspect(TOY);
  assertGapless(sections, TOY.length, "toy");
  const second = TOY.length - fullStream(3).length;
  assert.deepEqual(begun, [[1, 0], [2, second]]);
  assert.deepEqual(
    streams.map(({ number, kind, complete, checkpoints, offset, endOffset }) => {
      return [number, kind, complete, checkpoints, offset, endOffset];
    }),
    [[1, "colo", true, 2, 0, second], [2, "plain", true, 0, second, TOY.length]],
  );
  const numbers = sections.map((section) => section.checkpoint ?? 0);
  assert.deepEqual([...new Set(numbers)], [0, 1, 2]);
  assert.equal(numbers.at(-1), 0);
});

Deno.test("every prefix of a file is told without a gap up to its end", () => {
  const boundaries = [PASS.length, PASS.length + checkpoint(9).length];
  for (let length = 1; length < TOY.length; length++) {
    const file = TOY.subarray(0, length);
    const { sections, streams, fault } = inspect(file);
    if (length < 8) {
      assert.equal(sections.length, 0);
      continue;
    }
    assertGapless(sections, length, `cut at ${length}`);
    if (boundaries.includes(length)) assert.equal(fault, undefined);
    // Cut behind a pass's last device, it is one of a QEMU that describes nothing.
    if (fault !== undefined) assert.equal(fault.fault, "truncated", `cut at ${length}`);
    const cutCheckpoint = length > PASS.length && sections.at(-1)!.checkpoint !== undefined;
    if (fault === undefined && !cutCheckpoint) assert.ok(streams.every((each) => each.complete));
  }
});

Deno.test("a checkpoint whose devices changed in size is told by their names", () => {
  const state = deviceState(7);
  const wider = concat(state.subarray(0, -6), 0xee, state.subarray(-6));
  const record = checkpoint(9);
  const size = new Uint8Array(8);
  new DataView(size.buffer).setBigUint64(0, BigInt(wider.length));
  const ram = record.subarray(8, record.length - state.length - 8);
  const file = concat(PASS, REQUEST, SEND, ram, size, wider);
  const { sections, fault, streams } = inspect(file);
  assert.equal(fault, undefined);
  const last = sections.at(-1)!;
  assert.ok(last.kind === "device-state", last.kind);
  assert.equal(last.sizeBytes, wider.length);
  assert.ok(last.complete && last.devices.length > 0);
  assert.deepEqual([streams[0].complete, streams[0].checkpoints], [true, 1]);
});

Deno.test("garbage begins no stream, and garbage behind one does not spoil it", () => {
  const alone = inspect(concat("no migration stream"));
  assert.deepEqual([alone.begun, alone.sections, alone.fault?.fault], [[], [], "bad-magic"]);
  const behind = inspect(concat(PASS, "garbage"));
  assert.equal(behind.fault?.offset, PASS.length);
  assert.deepEqual(behind.streams.map(({ complete }) => complete), [true]);
});

Deno.test("a machine that describes nothing is told by its sections, checkpoints too", () => {
  const silent = PASS.subarray(0, -VMDESC.length);
  const { sections, streams, fault } = inspect(concat(silent, checkpoint(9)));
  assert.equal(fault, undefined);
  assert.deepEqual(streams.map(({ complete, checkpoints }) => [complete, checkpoints]), [[
    true,
    1,
  ]]);
  const devices = sections.filter((section) => section.kind === "device");
  assert.deepEqual(devices.map(({ name, sectionId }) => [name, sectionId]), [["dev", 5]]);
  assert.ok(!sections.some(({ kind }) => kind === "vmdescription"));
  assert.equal(sections.at(-1)!.kind, "device-state");
});
