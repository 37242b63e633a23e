import assert from "node:assert/strict";
import fc from "fast-check";
import { StateError, WireError, type WireFault } from "../errors.ts";
import {
  concatenate,
  decodeReplies,
  DISCONNECT,
  encodeFullHandshake,
  encodeInfo,
  encodeRequest,
  errorOf,
  type Reply,
  u32,
} from "./testing/client_messages.ts";
import { MemoryDisk } from "./testing/memory_disk.ts";
import type { NbdRequest } from "./request.ts";
import { NbdServerSession } from "./server_session.ts";
import {
  MAX_PAYLOAD_BYTES,
  NBD_CMD,
  NBD_CMD_FLAG,
  NBD_ERROR,
  NBD_OPT,
  NBD_REPLY_TYPE,
  readU32,
  readU64,
} from "./wire.ts";

const SIZE = 64 * 1024;
const STRUCTURED = encodeFullHandshake("disk");
const SIMPLE = concatenate(u32(3), encodeInfo(NBD_OPT.GO, "disk"));
const bytesOf = (text: string) => new TextEncoder().encode(text);

function newDisk(sizeBytes = SIZE): MemoryDisk {
  const disk = new MemoryDisk(sizeBytes);
  disk.session = new NbdServerSession([{ name: "disk", sizeBytes }], disk);
  return disk;
}

function output(disk: MemoryDisk): Uint8Array<ArrayBuffer> {
  return concatenate(...disk.session.takeOutput());
}

/** A disk whose client has haggled. */
function chosen(handshake = STRUCTURED, disk = newDisk()): MemoryDisk {
  assert.equal(disk.session.receive(handshake, 0, handshake.length), handshake.length);
  assert.notEqual(disk.session.negotiated, undefined);
  disk.session.takeOutput();
  return disk;
}

function say(disk: MemoryDisk, ...messages: Uint8Array[]): void {
  const bytes = concatenate(...messages);
  assert.equal(disk.session.receive(bytes, 0, bytes.length), bytes.length);
}

function answers(disk: MemoryDisk, lengths: Record<number, number> = {}): Reply[] {
  return decodeReplies(output(disk), (cookie) => lengths[cookie] ?? 0);
}

const { READ, WRITE, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS } = NBD_CMD;

Deno.test("reads are answered with one chunk, or a simple reply, that has the data", () => {
  const request = encodeRequest(READ, { cookie: 2 ** 40 + 9, offset: 16, length: 5 });
  const disk = chosen();
  disk.content.set(bytesOf("hello"), 16);
  say(disk, request);
  const [reply] = answers(disk);
  assert.ok(reply.kind === "chunk" && reply.done);
  assert.deepEqual([reply.cookie, reply.type], [2 ** 40 + 9, NBD_REPLY_TYPE.OFFSET_DATA]);
  assert.equal(readU64(reply.payload, 0), 16);
  assert.deepEqual(reply.payload.subarray(8), bytesOf("hello"));

  const old = chosen(SIMPLE);
  old.content.set(bytesOf("hello"), 16);
  say(old, request);
  const data = bytesOf("hello");
  assert.deepEqual(answers(old, { [2 ** 40 + 9]: 5 }), [
    { kind: "simple", cookie: 2 ** 40 + 9, error: 0, data },
  ]);
});

Deno.test("every command reaches the disk as it was asked, and is answered", () => {
  const disk = chosen();
  const range = { offset: 512, length: 8 };
  say(
    disk,
    encodeRequest(WRITE, { cookie: 1, offset: 512, data: bytesOf("12345678"), flags: 1 }),
    encodeRequest(FLUSH, { cookie: 2 }),
    encodeRequest(TRIM, { cookie: 3, ...range }),
    encodeRequest(CACHE, { cookie: 4, ...range }),
    encodeRequest(WRITE_ZEROES, { cookie: 5, offset: 514, length: 2, flags: 0x13 }),
    encodeRequest(BLOCK_STATUS, { cookie: 6, ...range, flags: NBD_CMD_FLAG.REQ_ONE }),
    encodeRequest(BLOCK_STATUS, { cookie: 7, ...range }),
    DISCONNECT,
  );
  assert.deepEqual(disk.log, [
    "write 512+8 flags 1",
    "flush 0+0",
    "trim 512+8",
    "cache 512+8",
    "zero 514+2 flags 19",
    "status 512+8 flags 8",
    "status 512+8",
  ]);
  assert.ok(disk.session.closed);
  disk.session.finish(0);
  const replies = answers(disk);
  assert.deepEqual(replies.map(({ cookie }) => cookie), [1, 2, 3, 4, 5, 6, 7]);
  for (const reply of replies) assert.equal(errorOf(reply), undefined);
  const extents = replies.slice(5).map((reply) => {
    assert.ok(reply.kind === "chunk" && reply.type === NBD_REPLY_TYPE.BLOCK_STATUS);
    return [...Array(reply.payload.length / 4).keys()].map((i) => readU32(reply.payload, 4 * i));
  });
  // The context's id, then length and flags of each extent; neighbours have been joined.
  assert.deepEqual(extents, [[1, 2, 0], [1, 2, 0, 2, 2, 4, 0]]);
});

Deno.test("a request that cannot be served is answered, and the next one is served", () => {
  for (const handshake of [STRUCTURED, SIMPLE]) {
    const disk = chosen(handshake);
    say(
      disk,
      encodeRequest(READ, { cookie: 1, offset: SIZE, length: 1 }),
      encodeRequest(WRITE, { cookie: 2, offset: SIZE - 1, data: bytesOf("xy") }),
      encodeRequest(99, { cookie: 3 }),
      encodeRequest(WRITE, { cookie: 4 }),
      encodeRequest(FLUSH, { cookie: 5 }),
    );
    assert.deepEqual(disk.log, ["flush 0+0"]);
    const errors = answers(disk).map((reply) => errorOf(reply)?.error);
    const { EINVAL, ENOSPC } = NBD_ERROR;
    assert.deepEqual(errors, [EINVAL, ENOSPC, EINVAL, EINVAL, undefined]);
  }
});

Deno.test("a write too long to take is skipped without being kept, and refused", () => {
  const disk = chosen();
  const length = MAX_PAYLOAD_BYTES + 10;
  say(disk, encodeRequest(WRITE, { cookie: 8, length }));
  const piece = new Uint8Array(1 << 20);
  for (let sent = 0; sent < length; sent += piece.length) {
    assert.equal(disk.session.payloadRoom, undefined);
    assert.deepEqual(disk.session.takeOutput(), []);
    say(disk, piece.subarray(0, length - sent));
  }
  assert.match(errorOf(answers(disk)[0])!.message, /beyond the export/);
  say(disk, encodeRequest(FLUSH));
  assert.deepEqual(disk.log, ["flush 0+0"]);
});

Deno.test("requests may be answered in any order, each once and fittingly", () => {
  const waiting: NbdRequest[] = [];
  const disk = newDisk();
  disk.read = disk.write = disk.blockStatus = (request) => void waiting.push(request);
  chosen(STRUCTURED, disk);
  say(
    disk,
    encodeRequest(READ, { cookie: 1, offset: 10, length: 9 }),
    encodeRequest(WRITE, { cookie: 2, data: bytesOf("abc") }),
    encodeRequest(READ, { cookie: 1, length: 3 }),
    encodeRequest(BLOCK_STATUS, { cookie: 4, length: 3 }),
    encodeRequest(READ, { cookie: 5, length: 4, flags: NBD_CMD_FLAG.DF }),
  );
  const { session } = disk;
  const [first, write, third, status, whole] = waiting;
  assert.equal(session.inFlight, 5);
  assert.deepEqual(session.takeOutput(), []);
  session.replyError(third, NBD_ERROR.EIO, "a bad sector", 2);
  session.replyDone(write);
  session.replyReadChunks(first, [bytesOf("ab"), { zeroBytes: 3 }, bytesOf("cdef")]);
  assert.equal(session.inFlight, 2);
  const replies = answers(disk);
  assert.deepEqual(errorOf(replies[0]), { error: 5, message: "a bad sector", offset: 2 });
  assert.deepEqual(replies.map(({ cookie }) => cookie), [1, 2, 1, 1, 1]);
  const chunks = replies.slice(2).map((reply) => {
    assert.ok(reply.kind === "chunk");
    return [reply.type, reply.done, readU64(reply.payload, 0)];
  });
  const { OFFSET_DATA, OFFSET_HOLE } = NBD_REPLY_TYPE;
  assert.deepEqual(chunks, [
    [OFFSET_DATA, false, 10],
    [OFFSET_HOLE, false, 12],
    [OFFSET_DATA, true, 15],
  ]);
  const wrong: [() => void, RegExp][] = [
    [() => session.replyDone(write), /answered before/],
    [() => session.replyReadChunks(whole, [bytesOf("ab"), { zeroBytes: 2 }]), /wants one/],
  ];
  for (const [act, message] of wrong) {
    assert.throws(act, (error) => error instanceof StateError && message.test(error.message));
  }
  assert.throws(() => session.replyDone(status), StateError);
});

Deno.test("data is passed on unchanged and not copied", () => {
  const disk = newDisk();
  const data = new Uint8Array(4096);
  disk.read = (request) => disk.session.replyRead(request, data);
  chosen(STRUCTURED, disk);
  say(disk, encodeRequest(READ, { length: 4096 }));
  assert.ok(disk.session.takeOutput().includes(data));

  let seen: Uint8Array | undefined;
  disk.write = (_, piece) => seen = piece;
  const message = encodeRequest(WRITE, { data });
  disk.session.receive(message, 0, message.length);
  assert.equal(seen!.buffer, message.buffer);
});

Deno.test("the rest of a long write may be read right into its place", () => {
  const disk = chosen();
  const data = new Uint8Array(5000).map((_, i) => i * 7);
  const message = encodeRequest(WRITE, { offset: 100, data });
  assert.equal(disk.session.payloadRoom, undefined);
  say(disk, message.subarray(0, 1000));
  let at = 1000;
  while (at < message.length) {
    const room: Uint8Array = disk.session.payloadRoom!;
    assert.equal(room.length, message.length - at);
    const piece = message.subarray(at, at + 777);
    room.set(piece);
    disk.session.payloadFilled(piece.length);
    at += piece.length;
  }
  assert.equal(disk.session.payloadRoom, undefined);
  assert.deepEqual(disk.content.subarray(100, 5100), data);
  assert.throws(() => disk.session.payloadFilled(1), StateError);
});

Deno.test("requests wait while the disk is not ready", () => {
  const disk = chosen();
  disk.welcome = 2;
  const messages = concatenate(...[1, 2, 3].map((cookie) => encodeRequest(FLUSH, { cookie })));
  const taken = disk.session.receive(messages, 0, messages.length);
  assert.equal(taken, messages.length * 2 / 3);
  disk.welcome = 1;
  say(disk, messages.subarray(taken));
  assert.deepEqual(answers(disk).map(({ cookie }) => cookie), [1, 2, 3]);
});

/** A conversation with every command in it, and some that are refused. */
function conversation(handshake: Uint8Array): Uint8Array<ArrayBuffer> {
  return concatenate(
    handshake,
    encodeRequest(WRITE, { cookie: 1, offset: 3, data: bytesOf("some data") }),
    encodeRequest(READ, { cookie: 2, length: 16 }),
    encodeRequest(WRITE, { cookie: 3, offset: SIZE, data: bytesOf("beyond the end") }),
    encodeRequest(TRIM, { cookie: 4, offset: 5, length: 2 }),
    encodeRequest(WRITE_ZEROES, { cookie: 5, offset: 4, length: 2 }),
    encodeRequest(BLOCK_STATUS, { cookie: 6, length: 20 }),
    encodeRequest(READ, { cookie: 7, offset: 1, length: 12, flags: NBD_CMD_FLAG.DF }),
    encodeRequest(FLUSH, { cookie: 8 }),
    DISCONNECT,
  );
}

for (const [name, handshake] of [["structured", STRUCTURED], ["simple", SIMPLE]] as const) {
  Deno.test(`a conversation is the same wherever it is cut, ${name}`, () => {
    const said = conversation(handshake);
    const whole = newDisk();
    say(whole, said);
    assert.ok(whole.session.closed);
    const expected = output(whole);
    for (let cut = 0; cut <= said.length; cut++) {
      const disk = newDisk();
      const taken = disk.session.receive(said, 0, cut);
      assert.equal(disk.session.offset, taken);
      disk.session.receive(said, taken, said.length);
      assert.deepEqual(output(disk), expected);
      assert.deepEqual(disk.content, whole.content);
    }
    const slow = newDisk();
    const pieces = [];
    for (let start = 0, end = 1; end <= said.length; end++) {
      start = slow.session.receive(said, start, end);
      pieces.push(...slow.session.takeOutput());
    }
    assert.deepEqual(concatenate(...pieces), expected);
  });

  Deno.test(`a client may go between requests; inside one it is said, ${name}`, () => {
    const said = conversation(handshake);
    const boundaries = new Set<number>();
    for (let length = 0; length <= said.length; length++) {
      const disk = newDisk();
      const taken = disk.session.receive(said, 0, length);
      try {
        disk.session.finish(length - taken);
        boundaries.add(length);
      } catch (error) {
        assert.ok(error instanceof WireError && error.fault === "truncated", `${error}`);
        assert.equal(error.offset, length);
      }
    }
    // Before the flags, after them, after each option, after each of nine requests.
    assert.equal(boundaries.size, (name === "structured" ? 5 : 3) + 9);
  });
}

Deno.test("what is no request ends the connection", () => {
  const disk = chosen();
  const bytes = encodeRequest(READ, { length: 1 });
  bytes[3] ^= 1;
  const fault: WireFault = "bad-magic";
  assert.throws(
    () => say(disk, encodeRequest(FLUSH), bytes),
    (error) =>
      error instanceof WireError && error.protocol === "nbd" && error.fault === fault &&
      error.offset === STRUCTURED.length + 28,
  );
});

Deno.test("mutated conversations are answered or refused, never anything else", () => {
  for (const handshake of [STRUCTURED, SIMPLE]) {
    const said = conversation(handshake);
    const change = fc.tuple(fc.integer({ min: 0, max: said.length - 1 }), fc.nat(255));
    const cuts = fc.array(fc.nat(said.length), { maxLength: 3 });
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 3 }), cuts, (changes, ends) => {
        const mutated = said.slice();
        for (const [at, value] of changes) mutated[at] = value;
        const disk = newDisk();
        try {
          let start = 0;
          for (const end of [...ends.sort((a, b) => a - b), mutated.length]) {
            start = disk.session.receive(mutated, start, Math.max(start, end));
            disk.session.takeOutput();
          }
          disk.session.finish(mutated.length - start);
        } catch (error) {
          assert.ok(error instanceof WireError, `${error}`);
        }
        assert.equal(disk.session.inFlight, 0);
      }),
      { seed: 7, numRuns: 400 },
    );
  }
});
