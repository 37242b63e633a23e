/** For tests: a net tap between two sockets, with a test in the place of the world and of QEMU. */
import assert from "node:assert/strict";
import { parseMac } from "../../../packet/ethernet.ts";
import { FrameSocket } from "../frame_socket.ts";
import { NetTap } from "../net_tap.ts";
import type { NetTapEvents, NetTapSettings } from "../net_tap_events.ts";
import { Reactor } from "../../system/reactor.ts";
import { connectSocket, type Listener, listenSocket } from "../../system/socket.ts";
import { parseNetTap, type UnixAddress } from "../net_tap_address.ts";
import { never } from "../../system/never.ts";

export const MAC = parseMac("52:54:00:12:34:56")!;

export function unix(path: string): UnixAddress {
  return { kind: "unix", path, text: `unix:${path}` };
}

/** A frame from {@link MAC} that carries a number. */
export function frame(number: number, lengthBytes = 64): Uint8Array {
  const bytes = new Uint8Array(lengthBytes);
  bytes.set(MAC, 6);
  new DataView(bytes.buffer).setUint32(14, number);
  return bytes;
}

export function numberOf(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(14);
}

/** The world, or a QEMU, played by a test. */
export class Peer {
  readonly frames: Uint8Array[] = [];
  ended = false;
  constructor(readonly socket: FrameSocket) {}

  get numbers(): number[] {
    return this.frames.map(numberOf);
  }
  read(): void {
    if (this.ended) return;
    this.ended = this.socket.receive(1 << 20, (each) => this.frames.push(each.slice())) === "end";
  }
  send(...numbers: number[]): void {
    for (const number of numbers) assert.ok(this.socket.send(frame(number)));
    assert.ok(this.socket.flush());
  }
}

/** A tap between two sockets, and all its events. */
export class Scene implements AsyncDisposable {
  readonly told: string[] = [];
  readonly faults: Error[] = [];
  readonly #opened: { close(): void }[] = [];
  tap!: NetTap;
  world!: Peer;
  listener!: Listener;

  private constructor(readonly folder: string, readonly reactor: Reactor) {}

  static async open(options: NetTapSettings = {}): Promise<Scene> {
    const scene = new Scene(await Deno.makeTempDir({ prefix: "kemari-tap-" }), new Reactor());
    scene.listener = await listenSocket(unix(`${scene.folder}/out`), scene.reactor, never);
    const events: NetTapEvents = {
      held: () => scene.told.push("held"),
      full: () => scene.told.push("full"),
      released: (epoch) => scene.told.push(`released ${epoch}`),
      guest: (isConnected) => scene.told.push(isConnected ? "guest" : "no guest"),
      announced: (by) => scene.told.push(`announced by ${by}`),
      restored: () => scene.told.push("restored"),
      fault: (error) => scene.faults.push(error),
    };
    scene.tap = await NetTap.open(
      parseNetTap(`net0=unix:${scene.folder}/in,unix:${scene.folder}/out`),
      scene.reactor,
      { events, ...options },
      never,
    );
    scene.world = scene.acceptWorld();
    return scene;
  }

  acceptWorld(): Peer {
    return this.#peer(this.listener.accept()!);
  }

  async connectGuest(): Promise<Peer> {
    const guest = this.#peer(
      await connectSocket(unix(`${this.folder}/in`), this.reactor, 1000, never),
    );
    await this.settle();
    return guest;
  }

  #peer(fd: number): Peer {
    const socket = new FrameSocket(fd, "test");
    this.#opened.push(socket);
    return new Peer(socket);
  }

  closePeer(peer: Peer): void {
    this.#opened.splice(this.#opened.indexOf(peer.socket), 1);
    peer.socket.close();
  }

  /** Lets everything that is under way arrive. */
  async settle(ms = 12): Promise<void> {
    await this.reactor.sleep(ms, never);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.tap.close();
    this.listener.close();
    for (const each of this.#opened) each.close();
    this.reactor.close();
    await Deno.remove(this.folder, { recursive: true });
  }
}
