/** For tests: two ends of a connection with a man in the middle, who records, changes and cuts. */
import assert from "node:assert/strict";
import { TransportError } from "../../../errors.ts";
import { openSocketPair } from "../../system/descriptor_passing.ts";
import { F_SETFL, O_NONBLOCK } from "../../system/linux.ts";
import { libc } from "../../system/libc.ts";
import { Reactor, type Watch } from "../../system/reactor.ts";
import { never } from "../../system/never.ts";
import { Relay, type Tamper } from "./relay.ts";
import type { Descriptors, Transport } from "../../system/transport.ts";

/** A non-blocking socket's descriptor, for both directions. */
export function onSocket(fd: number, name: string): Descriptors {
  return { input: fd, output: fd, name, isSocket: true, close: () => void libc().close(fd) };
}

/** Both ends of a socket. */
export function socketPair(): [number, number] {
  const { ours, theirs } = openSocketPair("test");
  libc().fcntl(theirs, F_SETFL, BigInt(O_NONBLOCK));
  return [ours, theirs];
}

/** An end as its user sees it: the data read, and how the connection ended. */
export class TestEnd {
  #read: Uint8Array[] = [];
  ended = false;
  error: unknown;
  readonly #watch: Watch;
  readonly #buffer: Uint8Array<ArrayBuffer>;
  #closed = false;
  /** Whether this end reads. */
  #hears = true;

  constructor(readonly reactor: Reactor, readonly transport: Transport, bufferBytes = 65536) {
    this.#buffer = new Uint8Array(bufferBytes);
    this.#watch = transport.watch(reactor, {
      readable: () => this.#guard(() => this.#hear()),
      writable: () => this.#guard(() => this.flush()),
    });
    this.#guard(() => this.flush());
  }

  get heard(): Uint8Array {
    const all = new Uint8Array(this.#read.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const piece of this.#read) {
      all.set(piece, at);
      at += piece.length;
    }
    return all;
  }
  get text(): string {
    return new TextDecoder().decode(this.heard);
  }
  get isOver(): boolean {
    return this.ended || this.error !== undefined;
  }

  say(...pieces: (Uint8Array | string)[]): void {
    const bytes = pieces.map((piece) =>
      typeof piece === "string" ? new TextEncoder().encode(piece) : piece
    );
    this.#guard(() => {
      this.transport.push(bytes);
      this.flush();
    });
  }

  /** Stops or begins to read. */
  hearing(hears: boolean): void {
    this.#hears = hears;
    this.#guard(() => this.flush());
  }

  flush(): void {
    if (this.error !== undefined) return;
    const written = this.transport.flush();
    this.#watch.want(this.#hears && !this.ended, !written);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#watch.stop();
    this.transport.close();
  }

  #hear(): void {
    const count = this.transport.read(this.#buffer);
    if (count === 0) this.ended = true;
    else if (count !== undefined) this.#read.push(this.#buffer.slice(0, count));
    this.#watch.want(this.#hears && !this.ended, this.transport.pendingBytes > 0);
  }

  #guard(act: () => void): void {
    try {
      act();
    } catch (error) {
      this.error ??= error;
      this.#watch.want(false, false);
    }
  }
}

/** Two ends and the man in the middle. */
export class TlsPair implements AsyncDisposable {
  readonly reactor = new Reactor();
  readonly sender: TestEnd;
  readonly receiver: TestEnd;
  readonly #relay: Relay;

  /** @param open Makes the ends from their descriptors. */
  constructor(
    open: {
      readonly sender: (on: Descriptors) => Transport;
      readonly receiver: (on: Descriptors) => Transport;
    },
    tamper: { readonly up?: Tamper; readonly down?: Tamper } = {},
    bufferBytes?: number,
  ) {
    const [senderFd, left] = socketPair();
    const [right, receiverFd] = socketPair();
    this.#relay = new Relay(this.reactor, left, right, tamper);
    const { reactor } = this;
    this.receiver = new TestEnd(reactor, open.receiver(onSocket(receiverFd, "recv")), bufferBytes);
    this.sender = new TestEnd(reactor, open.sender(onSocket(senderFd, "send")), bufferBytes);
  }

  until(done: () => boolean): Promise<void> {
    return this.reactor.run(done, never);
  }

  /** All bytes that were sent from the sender to the receiver, and back. */
  get recorded(): Relay["recorded"] {
    return this.#relay.recorded;
  }

  /** Cuts both connections, like a router that dies. */
  cut(): void {
    this.#relay.cut();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.sender.close();
    this.receiver.close();
    this.cut();
    this.reactor.close();
    return Promise.resolve();
  }
}

/** The error of an end, which must be a lost or refused peer's. */
export function failureOf({ error }: TestEnd): TransportError {
  assert.ok(error instanceof TransportError, `${error}`);
  assert.deepEqual([error.party, error.exitCode], ["peer", 4]);
  return error;
}

/** Whether both ends know who the other is. */
export function isOpen({ sender, receiver }: TlsPair): boolean {
  return [sender, receiver].every(({ transport: { encryption } }) =>
    encryption.kind === "tls" && encryption.peer !== undefined
  );
}
