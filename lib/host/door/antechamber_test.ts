import assert from "node:assert/strict";
import { concat } from "../../qemu/testing/synthetic_stream.ts";
import { encodeHeader } from "../../txn/frame_header.ts";
import { encodeHello, OFFERED_FEATURES, PROTOCOL_VERSION } from "../../txn/hello.ts";
import { MAX_CONTROL_BYTES, TXN } from "../../txn/wire.ts";
import { libc } from "../system/libc.ts";
import { never } from "../system/never.ts";
import { Reactor } from "../system/reactor.ts";
import { connectSocket, type Listener, listenSocket } from "../system/socket.ts";
import { PlainTransport, type Transport } from "../system/transport.ts";
import { Antechamber, DOOR_LIMITS, type DoorLimits } from "./antechamber.ts";

const PAYLOAD = encodeHello({
  version: PROTOCOL_VERSION,
  features: OFFERED_FEATURES,
  session: new Uint8Array(16),
  heartbeatMs: 1000,
  graceMs: 5000,
  committed: 0,
  maxTransactionBytes: 0,
  software: "test",
  fields: [{ tag: 77, bytes: new Uint8Array(9000) }],
});
const BARE = { flags: 0, sequence: 0, transaction: 0 };
const HELLO = concat(
  encodeHeader({ ...BARE, command: TXN.HELLO, lengthBytes: PAYLOAD.length }),
  PAYLOAD,
);

/** An antechamber on a real socket, and what it says of whom. */
class Scene implements AsyncDisposable {
  readonly proven: { readonly peer: Transport; readonly said: Uint8Array }[] = [];
  readonly strangers: string[] = [];
  readonly antechamber: Antechamber;
  readonly #clients = new Set<number>();
  #listener!: Listener;

  private constructor(readonly reactor: Reactor, readonly folder: string, limits: DoorLimits) {
    this.antechamber = new Antechamber(reactor, {
      proven: (peer, said) => this.proven.push({ peer, said: said.slice() }),
      stranger: ({ message }) => this.strangers.push(message),
    }, limits);
  }

  static async open(limits: Partial<DoorLimits> = {}): Promise<Scene> {
    const folder = await Deno.makeTempDir({ prefix: "kemari-door-" });
    const scene = new Scene(new Reactor(), folder, { ...DOOR_LIMITS, ...limits });
    const address = { kind: "unix", path: `${folder}/s`, text: "it" } as const;
    scene.#listener = await listenSocket(address, scene.reactor, never);
    return scene;
  }

  /** Connects, and lets it in. @param Kind What is made of the connection. */
  async connect(Kind = PlainTransport): Promise<number> {
    const address = { kind: "unix", path: `${this.folder}/s`, text: "it" } as const;
    const client = await connectSocket(address, this.reactor, 1000, never);
    this.#clients.add(client);
    const fd = this.#listener.accept()!;
    const close = () => void libc().close(fd);
    const descriptors = { input: fd, output: fd, name: "it", isSocket: true, close };
    this.antechamber.admit(new Kind(descriptors, "peer"));
    return client;
  }

  say(client: number, bytes: Uint8Array): void {
    assert.equal(
      Number(libc().write(client, bytes as Uint8Array<ArrayBuffer>, BigInt(bytes.length))),
      bytes.length,
    );
  }

  leave(client: number): void {
    if (this.#clients.delete(client)) libc().close(client);
  }

  /** What the client has been told, and whether that was all. */
  async hear(client: number): Promise<string> {
    let text = "";
    const buffer = new Uint8Array(4096);
    await this.reactor.run(() => {
      const count = Number(libc().read(client, buffer, 4096n));
      if (count > 0) text += new TextDecoder("latin1").decode(buffer.subarray(0, count));
      return count === 0;
    }, never);
    return text;
  }

  async until(done: () => boolean): Promise<void> {
    await this.reactor.run(done, never);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) libc().close(client);
    for (const { peer } of this.proven) peer.close();
    this.antechamber.close();
    this.#listener.close();
    await this.until(() => this.antechamber.leaving === 0);
    this.reactor.close();
    await Deno.remove(this.folder, { recursive: true });
  }
}

const descriptors = () => [...Deno.readDirSync("/proc/self/fd")].length;

Deno.test("a sender is known when its HELLO is whole, in whatever pieces it comes", async () => {
  await using scene = await Scene.open();
  for (const pieceBytes of [1, 19, 20, 4096, HELLO.length]) {
    const client = await scene.connect();
    for (let at = 0; at < HELLO.length; at += pieceBytes) {
      assert.equal(scene.proven.length, 0);
      scene.say(client, HELLO.subarray(at, at + pieceBytes));
      // A socket takes only so many pieces that are not read.
      if (pieceBytes > 1 || at % 32 === 0) await scene.reactor.sleep(0, never);
    }
    await scene.until(() => scene.proven.length === 1);
    const [{ peer, said }] = scene.proven.splice(0);
    assert.deepEqual(said, HELLO);
    assert.equal(scene.antechamber.waiting, 0);
    // It is the owner's: nobody here reads it any more.
    scene.say(client, HELLO);
    await scene.reactor.sleep(5, never);
    assert.equal(peer.read(new Uint8Array(65536)), HELLO.length);
    peer.close();
    scene.leave(client);
  }
  assert.deepEqual(scene.strangers, []);
});

Deno.test("what stands behind a HELLO in the same piece is the owner's to judge", async () => {
  await using scene = await Scene.open();
  scene.say(await scene.connect(), concat(HELLO, "more"));
  await scene.until(() => scene.proven.length === 1);
  assert.deepEqual(scene.proven[0].said, concat(HELLO, "more"));
});

const STRANGERS: readonly (readonly [string, Uint8Array, RegExp])[] = [
  ["another protocol", new TextEncoder().encode("GET / HTTP/1.1\r\n"), /does not speak kemari/],
  ["two bytes of it", new TextEncoder().encode("GE"), /does not speak kemari/],
  [
    "another frame",
    encodeHeader({ ...BARE, command: TXN.HEARTBEAT, lengthBytes: 0 }),
    /HEARTBEAT before HELLO/,
  ],
  [
    "a HELLO that is none",
    concat(encodeHeader({ ...BARE, command: TXN.HELLO, lengthBytes: 80 }), new Uint8Array(80)),
    /HELLO without its magic/,
  ],
  [
    "too long a HELLO",
    encodeHeader({ ...BARE, command: TXN.HELLO, lengthBytes: MAX_CONTROL_BYTES + 1 }),
    /HELLO of 131073 bytes/,
  ],
];
for (const [what, bytes, said] of STRANGERS) {
  Deno.test(`a stranger is told what this is: ${what}`, async () => {
    await using scene = await Scene.open();
    const client = await scene.connect();
    scene.say(client, bytes);
    assert.match(await scene.hear(client), said);
    assert.deepEqual([scene.antechamber.waiting, scene.antechamber.leaving], [0, 1]);
    assert.match(scene.strangers.join(), said);
    scene.leave(client);
    await scene.until(() => scene.antechamber.leaving === 0);
  });
}

Deno.test("who goes before HELLO is whole, or says too little in its time, is gone", async () => {
  await using scene = await Scene.open({ helloMs: 60 });
  const [goes, idle, drips] = [await scene.connect(), await scene.connect(), await scene.connect()];
  scene.say(goes, HELLO.subarray(0, 30));
  scene.leave(goes);
  await scene.until(() => scene.strangers.length === 1);
  assert.match(scene.strangers[0], /closed the connection before a HELLO/);
  const drip = (at: number) => {
    if (scene.strangers.length === 3) return;
    scene.say(drips, HELLO.subarray(at, at + 1));
    scene.reactor.after(5, () => drip(at + 1));
  };
  drip(0);
  for (const client of [idle, drips]) {
    assert.match(await scene.hear(client), /no HELLO in 0.06 s/);
    scene.leave(client);
  }
  assert.equal(scene.antechamber.waiting, 0);
  assert.deepEqual(scene.proven, []);
});

Deno.test("when too many wait the oldest has to go, unless it has said HELLO just now", async () => {
  await using scene = await Scene.open({ waiting: 3 });
  const before = descriptors();
  const clients: number[] = [];
  for (let i = 0; i < 100; i++) clients.push(await scene.connect());
  assert.equal(scene.antechamber.waiting, 3);
  assert.equal(scene.strangers.length, 97);
  assert.equal(descriptors(), before + 100 + 3);
  // It has not been read yet: the loop has not had a turn.
  scene.say(clients[97], HELLO);
  await scene.connect();
  assert.equal(scene.proven.length, 1);
  assert.deepEqual([scene.antechamber.waiting, scene.strangers.length], [3, 97]);
  scene.say(clients[99], HELLO);
  await scene.until(() => scene.proven.length === 2);
  for (const client of clients) scene.leave(client);
  await scene.until(() => scene.antechamber.waiting === 1);
  scene.antechamber.close();
  for (const { peer } of scene.proven.splice(0)) peer.close();
  assert.equal(descriptors(), before + 1);
});

Deno.test("no more than so many are waited for until they have read why they are not wanted", async () => {
  await using scene = await Scene.open({ leaving: 2 });
  const before = descriptors();
  for (let i = 0; i < 20; i++) {
    scene.say(await scene.connect(), HELLO);
    await scene.until(() => scene.proven.length === 1);
    scene.antechamber.turnAway(scene.proven.pop()!.peer, "busy", "another is served");
  }
  assert.equal(scene.antechamber.leaving, 2);
  assert.equal(descriptors(), before + 20 + 2);
});

/** A connection with a handshake: a byte of the client's is answered, and all behind it is read. */
class ShakenTransport extends PlainTransport {
  #isShaken = false;

  override read(buffer: Uint8Array<ArrayBuffer>): number | undefined {
    if (this.#isShaken) return super.read(buffer);
    const first = super.read(buffer.subarray(0, 1));
    if (first !== 1) return first;
    this.#isShaken = true;
    this.push([new TextEncoder().encode("!")]);
    this.flush();
    return super.read(buffer);
  }
}

Deno.test("a connection's handshake is got done, and counts as a part of its waiting", async () => {
  await using scene = await Scene.open({ helloMs: 100 });
  const client = await scene.connect(ShakenTransport);
  const silent = await scene.connect(ShakenTransport);
  const answer = new Uint8Array(1);
  scene.say(client, new TextEncoder().encode("?"));
  await scene.until(() => Number(libc().read(client, answer, 1n)) === 1);
  assert.deepEqual(answer, new TextEncoder().encode("!"));
  scene.say(client, HELLO);
  await scene.until(() => scene.proven.length === 1);
  await scene.hear(silent);
  assert.match(scene.strangers.join(), /no HELLO in 0.1 s/);
});
