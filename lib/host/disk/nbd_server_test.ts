import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { type KemariError, TransportError, UsageError, WireError } from "../../errors.ts";
import {
  concatenate,
  decodeReplies,
  DISCONNECT,
  encodeFullHandshake,
  encodeRequest,
  errorOf,
  type Reply,
} from "../../nbd/testing/client_messages.ts";
import { CHUNK_HEADER_BYTES, NBD_CMD, NBD_ERROR, readU32 } from "../../nbd/wire.ts";
import type { Done } from "../../replica/events/done.ts";
import type { BlockBackend, StatusDone, ZeroFlags } from "../image/block_backend.ts";
import { ERRNO } from "../system/linux.ts";
import { NbdServer } from "./nbd_server.ts";
import { Reactor } from "../system/reactor.ts";
import { delay } from "../system/delay.ts";
import { until } from "../../lab/program/until.ts";

const MIB = 1 << 20;
const { READ, WRITE, FLUSH } = NBD_CMD;

class MemoryBackend implements BlockBackend {
  readonly name = "memory";
  readonly readOnly = false;
  readonly content: Uint8Array;
  /** What the next write fails with. */
  failure: Error | undefined;
  isReady = true;

  constructor(readonly sizeBytes: number) {
    this.content = new Uint8Array(sizeBytes);
    for (let i = 0; i < sizeBytes; i++) this.content[i] = i % 253;
  }
  ready(): boolean {
    return this.isReady;
  }
  read(into: Uint8Array, offset: number, done: Done): void {
    into.set(this.content.subarray(offset, offset + into.length));
    done();
  }
  write(data: Uint8Array, offset: number, _fua: boolean, done: Done): void {
    const failure = this.failure;
    this.failure = undefined;
    if (failure !== undefined) return done(failure);
    this.content.set(data, offset);
    done();
  }
  flush(done: Done): void {
    done();
  }
  trim(_offset: number, _lengthBytes: number, _fua: boolean, done: Done): void {
    done();
  }
  zero(offset: number, lengthBytes: number, _options: ZeroFlags, done: Done): void {
    this.content.fill(0, offset, offset + lengthBytes);
    done();
  }
  status(_: number, lengthBytes: number, _most: number, done: StatusDone): void {
    done([{ lengthBytes, flags: 0 }]);
  }
}

/** A client that says what it is told to, and reads only when asked. */
class Client {
  private constructor(readonly conn: Deno.Conn) {}

  static async connect(path: string): Promise<Client> {
    return new Client(await Deno.connect({ transport: "unix", path }));
  }
  async send(...messages: Uint8Array[]): Promise<void> {
    const bytes = concatenate(...messages);
    for (let at = 0; at < bytes.length;) at += await this.conn.write(bytes.subarray(at));
  }
  /** Exactly so many bytes. */
  async read(lengthBytes: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(lengthBytes);
    for (let at = 0; at < lengthBytes;) {
      const count = await this.conn.read(bytes.subarray(at));
      assert.notEqual(count, null, "the server hung up");
      at += count!;
    }
    return bytes;
  }
  /** Haggles; the answers' length is known. */
  async choose(): Promise<void> {
    await this.send(encodeFullHandshake("disk"));
    await this.read(18 + 20 + (20 + 19) + 20 + (20 + 12) + (20 + 14) + 20);
  }
  async simpleReply(): Promise<Reply> {
    return decodeReplies(await this.read(16))[0];
  }
  async chunk(): Promise<Reply> {
    const header = await this.read(CHUNK_HEADER_BYTES);
    return decodeReplies(concatenate(header, await this.read(readU32(header, 16))))[0];
  }
  /** True when the server has closed; bytes before that are passed over. */
  async hungUp(): Promise<boolean> {
    const bytes = new Uint8Array(65536);
    try {
      while (await this.conn.read(bytes) !== null);
    } catch (error) {
      assert.ok(error instanceof Deno.errors.ConnectionReset, `${error}`);
    }
    this.conn.close();
    return true;
  }
}

interface Lab {
  readonly server: NbdServer;
  readonly backend: MemoryBackend;
  readonly path: string;
  readonly reactor: Reactor;
  readonly gone: (KemariError | undefined)[];
  readonly failures: string[];
  connect(): Promise<Client>;
}

/** Runs `act` beside a server of one 8 MiB disk. */
function serverTest(name: string, act: (lab: Lab) => Promise<void>): void {
  Deno.test(name, async () => {
    const folder = await Deno.makeTempDir({ prefix: "kemari-nbd-" });
    const path = `${folder}/socket`;
    const reactor = new Reactor();
    const backend = new MemoryBackend(8 * MIB);
    const gone: (KemariError | undefined)[] = [];
    const failures: string[] = [];
    const { signal } = new AbortController();
    const server = await NbdServer.listen(
      {
        address: { kind: "unix", path, text: `unix:${path}` },
        exports: [{ name: "disk", backend }],
        mostPendingBytes: MIB,
        onDisconnect: (_, error) => gone.push(error),
        onFailure: (disk, error) => failures.push(`${disk}: ${error.message}`),
      },
      reactor,
      signal,
    );
    const connect = () => Client.connect(path);
    try {
      await reactor.during(
        act({ server, backend, path, reactor, gone, failures, connect }),
        signal,
      );
    } finally {
      server.close();
      reactor.close();
      await Deno.remove(folder, { recursive: true });
    }
  });
}

/** As deepEqual, which takes seconds for megabytes. */
function assertSame(actual: Uint8Array, expected: Uint8Array): void {
  assert.equal(Buffer.compare(actual, expected), 0);
}

serverTest("clients see each other's writes, and take their leave", async (lab) => {
  const [one, two] = [await lab.connect(), await lab.connect()];
  await one.choose();
  await two.choose();
  const data = lab.backend.content.slice(7, 3 * MIB + 7);
  await one.send(encodeRequest(WRITE, { cookie: 1, offset: 5, data }));
  assert.equal(errorOf(await one.simpleReply()), undefined);
  await two.send(encodeRequest(READ, { cookie: 2, offset: 5, length: data.length }));
  const reply = await two.chunk();
  assert.ok(reply.kind === "chunk" && reply.done);
  assertSame(reply.payload.subarray(8), data);
  assert.equal(lab.server.countersOf("disk").connections, 2);
  await one.send(DISCONNECT);
  assert.ok(await one.hungUp());
  two.conn.close();
  await until(() => lab.server.connections === 0, "both to go");
  assert.deepEqual(lab.gone, [undefined, undefined]);
  const { connections, requests, readBytes, writtenBytes } = lab.server.countersOf("disk");
  assert.deepEqual([connections, requests, readBytes, writtenBytes], [0, 2, 3 * MIB, 3 * MIB]);
});

serverTest(
  "a client that is at fault ends alone, and nothing of a cut write is kept",
  async (lab) => {
    const good = await lab.connect();
    await good.choose();
    const before = lab.backend.content.slice();
    const cut = await lab.connect();
    await cut.choose();
    const write = encodeRequest(WRITE, { data: new Uint8Array(4 * MIB).fill(9) });
    await cut.send(write.subarray(0, 3 * MIB));
    cut.conn.close();
    const babbler = await lab.connect();
    await babbler.send(new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"));
    assert.ok(await babbler.hungUp());
    await until(() => lab.server.connections === 1, "the others to go");
    const faults = lab.gone.map((error) => error instanceof WireError && error.fault).sort();
    assert.deepEqual(faults, ["truncated", "unsupported"]);
    assertSame(lab.backend.content, before);
    await good.send(encodeRequest(FLUSH, { cookie: 4 }));
    assert.equal((await good.simpleReply()).cookie, 4);
    good.conn.close();
  },
);

serverTest("a client that does not read is not served without end, others are", async (lab) => {
  const slow = await lab.connect();
  await slow.choose();
  const requests = 40;
  const length = MIB / 4;
  for (let cookie = 0; cookie < requests; cookie++) {
    await slow.send(encodeRequest(READ, { cookie, offset: cookie, length }));
  }
  await until(() => lab.server.countersOf("disk").requests >= 4, "requests");
  const other = await lab.connect();
  await other.choose();
  await other.send(encodeRequest(FLUSH));
  await other.simpleReply();
  // What may wait is 1 MiB; the socket itself holds some more.
  assert.ok(lab.server.countersOf("disk").requests <= 20);
  for (let cookie = 0; cookie < requests; cookie++) {
    const reply = await slow.chunk();
    assert.ok(reply.kind === "chunk");
    assert.equal(reply.cookie, cookie);
    const expected = lab.backend.content.subarray(cookie, cookie + length);
    assertSame(reply.payload.subarray(8), expected);
  }
  slow.conn.close();
  other.conn.close();
});

serverTest("a failing disk: client and operator are told, and it goes on", async (lab) => {
  const client = await lab.connect();
  await client.choose();
  const codes = [
    [ERRNO.EIO, NBD_ERROR.EIO],
    [ERRNO.ENOSPC, NBD_ERROR.ENOSPC],
    [ERRNO.EDQUOT, NBD_ERROR.ENOSPC],
    [ERRNO.EROFS, NBD_ERROR.EPERM],
    [ERRNO.ENOMEM, NBD_ERROR.ENOMEM],
    [undefined, NBD_ERROR.EIO],
  ];
  for (const [cause, expected] of codes) {
    lab.backend.failure = new TransportError("memory", "write", "it broke", { cause });
    await client.send(encodeRequest(WRITE, { data: new Uint8Array(7) }));
    assert.deepEqual(errorOf(await client.chunk()), {
      error: expected,
      message: "memory: it broke",
    });
  }
  assert.deepEqual(lab.failures, codes.map(() => "disk: memory: it broke"));
  assert.equal(lab.server.countersOf("disk").failures, codes.length);
  await client.send(encodeRequest(WRITE, { data: new Uint8Array(7) }));
  assert.equal(errorOf(await client.simpleReply()), undefined);
  client.conn.close();
});

serverTest("requests wait while the disk is not ready", async (lab) => {
  const client = await lab.connect();
  await client.choose();
  lab.backend.isReady = false;
  await client.send(encodeRequest(FLUSH, { cookie: 1 }), encodeRequest(FLUSH, { cookie: 2 }));
  await delay(30);
  assert.equal(lab.server.countersOf("disk").requests, 0);
  lab.backend.isReady = true;
  lab.server.resume();
  assert.deepEqual([(await client.simpleReply()).cookie, (await client.simpleReply()).cookie], [
    1,
    2,
  ]);
  client.conn.close();
});

serverTest("closing drops the clients and removes the socket", async (lab) => {
  const client = await lab.connect();
  await client.choose();
  lab.reactor.after(0, () => lab.server.close());
  assert.ok(await client.hungUp());
  assert.throws(() => Deno.statSync(lab.path), Deno.errors.NotFound);
});

serverTest("a socket in use and names that do not do are refused", async (lab) => {
  const { backend, path } = lab;
  const { signal } = new AbortController();
  const address = { kind: "unix", path, text: `unix:${path}` } as const;
  const listen = (...names: string[]) =>
    NbdServer.listen(
      { address, exports: names.map((name) => ({ name, backend })) },
      lab.reactor,
      signal,
    );
  await assert.rejects(listen("a", "a"), UsageError);
  await assert.rejects(listen("a\0"), UsageError);
});
