import assert from "node:assert/strict";
import { runKemari, spawnKemari } from "../../lab/program/run_kemari.ts";
import { listStreams, loadStream } from "../../lab/recording/streams.ts";
import { Carry } from "../../bytes/carry.ts";
import { KemariError } from "../../errors.ts";
import { StreamInspector } from "../../qemu/stream_inspector.ts";
import { StreamParser } from "../../qemu/stream_parser.ts";
import {
  checkpoint,
  concat,
  deviceState,
  fullStream,
  PING,
  u32,
  VMDESC,
  VMDESC_JSON,
} from "../../qemu/testing/synthetic_stream.ts";
import { SECTION } from "../../qemu/wire.ts";
import { InspectJson } from "./inspect_json.ts";
import { InspectText } from "./inspect_text.ts";

/** A file for the time of a test. */
async function withFile(bytes: Uint8Array, body: (path: string) => Promise<void>): Promise<void> {
  const path = await Deno.makeTempFile({ prefix: "kemari-inspect-" });
  try {
    await Deno.writeFile(path, bytes);
    await body(path);
  } finally {
    await Deno.remove(path);
  }
}

/** What the command would write about `file`, without a process. */
function report(file: Uint8Array, as: "json" | "text" | "fields"): string {
  let text = "";
  const write = (more: string) => void (text += more);
  const sink = as === "json"
    ? new InspectJson("f", write)
    : new InspectText(write, as === "fields");
  const inspector: StreamInspector = new StreamInspector(sink, () => parser);
  const parser: StreamParser = new StreamParser(inspector);
  const carry = new Carry();
  let failure: KemariError | undefined;
  try {
    carry.feed(file, 0, file.length, (bytes, start, end) => parser.parse(bytes, start, end));
    parser.finish(carry.pendingBytes);
  } catch (error) {
    assert.ok(error instanceof KemariError, String(error));
    failure = error;
  }
  inspector.end(parser.streamOffset);
  const { streams, checkpoints } = inspector;
  sink.end({ bytes: file.length, streams, checkpoints, failure });
  return text;
}

Deno.test("kemari inspect prints sections, blocks and a summary of a recorded stream", async () => {
  await withFile(loadStream("colo-11.1-idle"), async (path) => {
    const { code, stdout, stderr } = await runKemari(["inspect", path]);
    assert.deepEqual([code, stderr], [0, ""]);
    const lines = stdout.split("\n");
    assert.match(lines[0], /^stream 1, from offset 0$/);
    assert.match(stdout, /\n +0 {2} +8 {2}header, version 3\n/);
    assert.match(stdout, / CONFIGURATION, machine pc-i440fx-11\.1\n/);
    assert.match(stdout, / COMMAND MIG_CMD_PING, data 00000001\n/);
    assert.match(stdout, / ram START, id \d+, 6 blocks\n/);
    assert.match(stdout, / ram PART, id \d+, 111 pages \+ 4115 zero\n/);
    assert.match(stdout, / device 0000:00:01\.3\/piix4_pm, instance 0, version 3, id \d+\n/);
    assert.match(stdout, / VMDESCRIPTION of 30 devices\n/);
    assert.equal(stdout.match(/ -- checkpoint \d+\n/g)?.length, 8);
    assert.match(stdout, / COLO VMSTATE_SIZE, \d+ bytes\n/);
    assert.match(
      stdout,
      /\n {2}RAM block +bytes +pages +zero +filled +xbzrle +distinct +duplicate\n/,
    );
    assert.match(stdout, /\n {2}pc\.ram +16777216 +\d+ +\d+ +0 +0 +4096 +\d+\n/);
    assert.equal(
      lines.at(-2),
      "1 stream, 8 checkpoints, 837026 bytes read, 143 pages + 4115 zero, 4226 distinct, " +
        "32 duplicates",
    );
  });
});

Deno.test("kemari inspect --fields shows decoded device state", async () => {
  await withFile(loadStream("plain-7.2-bios"), async (path) => {
    const { code, stdout } = await runKemari(["inspect", "--fields", path]);
    assert.equal(code, 0);
    assert.match(stdout, /device timer, [^\n]*\n {27}cpu_ticks_offset \(int64\): -?\d+\n/);
    assert.match(stdout, /\n {27}env\.regs \(uint64\): \[\d+(, \d+){15}\]\n/);
    assert.match(stdout, /\n {27}subsection cpu\/xcr0:|\n {27}subsection \S+:\n {29}\S+ \(/);
  });
});

Deno.test("kemari inspect --json reads streams back to back from stdin", async () => {
  const [first, second] = [loadStream("plain-10.0-bios"), loadStream("plain-11.1-shared-ram")];
  const ended = await runKemari(["inspect", "-", "--json"], { stdin: concat(first, second) });
  assert.deepEqual([ended.code, ended.stderr], [0, ""]);
  const document = JSON.parse(ended.stdout);
  assert.deepEqual(Object.keys(document), ["file", "streams", "summary", "fault"]);
  assert.equal(document.file, "stdin");
  assert.equal(document.fault, null);
  const [one, two] = document.streams;
  assert.deepEqual([one.number, one.kind, one.complete, one.offset, one.endOffset], [
    1,
    "plain",
    true,
    0,
    first.length,
  ]);
  assert.deepEqual([two.number, two.offset, two.endOffset, two.pageBytes], [
    2,
    first.length,
    first.length + second.length,
    4096,
  ]);
  const configuration = two.sections.find((section: { kind: string }) => {
    return section.kind === "configuration";
  });
  assert.deepEqual(configuration.capabilities, ["x-ignore-shared"]);
  assert.deepEqual(one.ramBlocks[0], {
    name: "pc.ram",
    lengthBytes: 16777216,
    pages: 62,
    zeroPages: 4034,
    fillPages: 0,
    xbzrlePages: 0,
    distinctPages: 4096,
    duplicatePages: 0,
  });
  assert.deepEqual(document.summary, {
    bytes: first.length + second.length,
    streams: 2,
    checkpoints: 0,
    pages: 114 + 50,
    zeroPages: 4112 + 80,
    fillPages: 0,
    xbzrlePages: 0,
    distinctPages: 4226 + 130,
    duplicatePages: 0,
  });
});

Deno.test("JSON has every field, 64-bit integers as decimal strings", () => {
  const document = JSON.parse(report(loadStream("plain-11.1-virtio"), "json"));
  const devices = document.streams[0].sections.filter((section: { kind: string }) => {
    return section.kind === "device";
  });
  const timer = devices.find((device: { name: string }) => device.name === "timer");
  const [ticks] = timer.fields;
  assert.deepEqual([ticks.name, ticks.type, ticks.sizeBytes], ["cpu_ticks_offset", "int64", 8]);
  assert.match(ticks.value, /^-?\d+$/);
  const kinds = new Set<string>();
  const visit = (field: Record<string, unknown>) => {
    assert.equal(typeof field.offset, "number");
    assert.ok("value" in field !== "fields" in field, JSON.stringify(field));
    if (Array.isArray(field.fields)) field.fields.forEach(visit);
    kinds.add(Array.isArray(field.fields) ? "fields" : typeof field.value);
  };
  for (const device of devices) device.fields.forEach(visit);
  assert.deepEqual([...kinds].sort(), ["boolean", "fields", "number", "object", "string"]);
});

Deno.test("every recorded stream, and half of it, gives valid JSON and printable text", () => {
  for (const { name } of listStreams()) {
    const whole = loadStream(name);
    for (const file of [whole, whole.subarray(0, whole.length / 2)]) {
      const document = JSON.parse(report(file, "json"));
      const refused = /dirty-bitmap/.test(name);
      assert.equal(document.fault !== null, refused || file !== whole, name);
      // deno-lint-ignore no-control-regex
      assert.doesNotMatch(report(file, "fields"), /[\x00-\x09\x0b-\x1f\x7f-\x9f]/, name);
    }
  }
});

Deno.test("a file cut at any byte still gives one valid JSON document", () => {
  const toy = concat(fullStream(1, [PING]), checkpoint(9));
  for (let length = 0; length <= toy.length; length++) {
    const document = JSON.parse(report(toy.subarray(0, length), "json"));
    for (const { sections } of document.streams) assert.ok(sections.length > 0);
    if (document.fault === null) continue;
    assert.deepEqual([document.fault.error, document.fault.exitCode], ["WireError", 3]);
    assert.equal(document.fault.protocol, "migration");
    assert.equal(typeof document.fault.offset, "number");
  }
});

Deno.test("a name in a file cannot command the terminal", () => {
  const evil = "\x1bcm";
  const json = new TextDecoder().decode(VMDESC_JSON)
    .replace(`"name":"dev"`, `"name":${JSON.stringify(evil)}`)
    .replace(`"name":"value"`, `"name":"\\u009b2J"`);
  const stream = fullStream();
  const state = deviceState(1);
  const file = concat(
    stream.subarray(0, stream.length - VMDESC.length - state.length),
    state.subarray(0, 6),
    evil,
    state.subarray(9),
    [SECTION.QEMU_VM_VMDESCRIPTION, u32(json.length), json],
  );
  const text = report(file, "fields");
  assert.match(text, /device \\x1bcm, instance 0[^]*\n +\\x9b2J \(uint32\): 1\n/);
});

interface Refusal {
  readonly what: string;
  readonly file: Uint8Array;
  readonly stderr: RegExp;
  readonly stdout?: RegExp;
}

const recorded = loadStream("plain-11.1-bios");
const REFUSALS: readonly Refusal[] = [
  {
    what: "a stream cut in its RAM",
    file: recorded.subarray(0, 300_000),
    stderr: /^kemari: migration stream, offset 300000: [^\n]*\(truncated\)\nhint: [^\n]+\n$/,
    stdout:
      /unfinished: ram, \d+ pages[^\n]*\n[^]*stream 1 is incomplete\n[^]*fault at offset 300000/,
  },
  {
    what: "a stream cut in its device state",
    file: recorded.subarray(0, recorded.length - 20),
    stderr: /\(truncated\)\n/,
    stdout: /unfinished: device state[^\n]*\n[^]*RAM block/,
  },
  {
    what: "garbage",
    file: new TextEncoder().encode("#!/bin/sh\nexit 0\n"),
    stderr: /^kemari: migration stream, offset 0: [^\n]*\(bad-magic\)/,
    stdout: /^0 streams, [^\n]*fault at offset 0 \(bad-magic\)\n$/,
  },
  { what: "an empty file", file: new Uint8Array(0), stderr: /is empty \(truncated\)\nhint: / },
];

for (const { what, file, stderr, stdout } of REFUSALS) {
  Deno.test(`kemari inspect of ${what} prints what precedes it and exits with 3`, async () => {
    await withFile(file, async (path) => {
      const text = await runKemari(["inspect", path]);
      assert.equal(text.code, 3);
      assert.match(text.stderr, stderr);
      if (stdout !== undefined) assert.match(text.stdout, stdout);
      const json = await runKemari(["inspect", path, "--json"]);
      assert.equal(json.code, 3);
      assert.equal(json.stderr, text.stderr);
      assert.ok(text.stderr.includes(JSON.parse(json.stdout).fault.message));
    });
  });
}

Deno.test("kemari inspect of what cannot be read exits with 4 and prints nothing", async () => {
  const missing = await runKemari(["inspect", "/nowhere/at/all"]);
  assert.deepEqual([missing.code, missing.stdout], [4, ""]);
  assert.match(missing.stderr, /^kemari: \/nowhere\/at\/all: there is no such file\nhint: /);
  const folder = await runKemari(["inspect", "/tmp", "--json"]);
  assert.deepEqual([folder.code, folder.stdout], [4, ""]);
  assert.match(folder.stderr, /^kemari: \/tmp: it is a folder\n/);
});

Deno.test("kemari inspect interrupted while it waits ends its document and exits with 130", async () => {
  const child = spawnKemari(["inspect", "--json", "--progress", "always", "-"]);
  const writer = child.stdin.getWriter();
  await writer.write(recorded.slice(0, 3000));
  // The first progress line shows that it has read what there is.
  const stderr = child.stderr.pipeThrough(new TextDecoderStream());
  let text = "";
  for await (const piece of stderr) {
    if (text === "") child.kill("SIGINT");
    text += piece;
  }
  const [{ code }, stdout] = await Promise.all([child.status, new Response(child.stdout).text()]);
  await writer.abort().catch(() => {});
  assert.equal(code, 130);
  assert.match(text, /\nkemari: interrupted by SIGINT\n$/);
  const document = JSON.parse(stdout);
  assert.deepEqual([document.fault.error, document.fault.exitCode], ["InterruptedError", 130]);
  assert.equal(document.streams[0].complete, false);
});
