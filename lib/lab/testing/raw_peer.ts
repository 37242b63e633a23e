/** For tests: one end of a session that says and hears bytes, whatever the protocol has to say to them. */
import assert from "node:assert/strict";
import { crc32 } from "node:zlib";
import { concat } from "../../qemu/testing/synthetic_stream.ts";
import { decodeHello, encodeHello, type Hello, OFFERED_FEATURES } from "../../txn/hello.ts";
import { decodeHeader, encodeHeader, type FrameHeader } from "../../txn/frame_header.ts";
import { HEADER_BYTES, TXN } from "../../txn/wire.ts";

/** A frame as it was heard. */
export interface RawFrame extends FrameHeader {
  readonly payload: Uint8Array;
}

/** A frame's bytes; what is not given is 0. */
export function rawFrame(
  header: Partial<FrameHeader> & { readonly command: number },
  payload: Uint8Array = new Uint8Array(0),
): Uint8Array {
  const lengthBytes = payload.length;
  const whole = { flags: 0, sequence: 0, transaction: 0, lengthBytes, ...header };
  return concat(encodeHeader(whole), payload);
}

/** A HELLO, as either end says it. */
export function rawHello(change: Partial<Hello> = {}): Uint8Array {
  return rawFrame(
    { command: TXN.HELLO },
    encodeHello({
      version: 1,
      features: OFFERED_FEATURES,
      session: new Uint8Array(16),
      heartbeatMs: 100,
      graceMs: 5000,
      committed: 0,
      maxTransactionBytes: 2 ** 30,
      software: "a test's own end",
      ...change,
    }),
  );
}

/** A whole transaction: BEGIN with FULL, events, the stream, COMMIT. */
export function rawTransaction(
  transaction: number,
  stream: Uint8Array,
  events: readonly Uint8Array[] = [],
): Uint8Array {
  let sequence = 0;
  let checksum = 0;
  let payloadBytes = 0;
  const next = (command: number, payload?: Uint8Array) =>
    rawFrame(
      { command, flags: command === TXN.BEGIN ? 1 : 0, sequence: sequence++, transaction },
      payload,
    );
  const carried = (command: number, payload: Uint8Array) => {
    checksum = crc32(payload, checksum);
    payloadBytes += payload.length;
    return next(command, payload);
  };
  const pieces = [next(TXN.BEGIN), ...events.map((event) => carried(TXN.EVENT, event))];
  for (let at = 0; at < stream.length; at += 2 ** 20) {
    pieces.push(carried(TXN.CONTINUE, stream.subarray(at, at + 2 ** 20)));
  }
  const sums = new Uint8Array(12);
  const view = new DataView(sums.buffer);
  view.setUint32(0, checksum);
  view.setBigUint64(4, BigInt(payloadBytes));
  return concat(...pieces, next(TXN.COMMIT, sums));
}

/** One connection. */
export class RawPeer implements Disposable {
  readonly #connection: Deno.Conn;
  #isClosed = false;

  constructor(connection: Deno.Conn) {
    this.#connection = connection;
  }

  static async connect(path: string): Promise<RawPeer> {
    return new RawPeer(await Deno.connect({ transport: "unix", path }));
  }

  /** Says all of it in one write, or as few as the socket takes it in. */
  async say(...pieces: readonly Uint8Array[]): Promise<void> {
    const bytes = concat(...pieces);
    for (let at = 0; at < bytes.length;) at += await this.#connection.write(bytes.subarray(at));
  }

  /** @returns The next bytes, exactly so many; undefined at the connection's end, or where it is reset. */
  async read(count: number): Promise<Uint8Array | undefined> {
    const bytes = new Uint8Array(count);
    for (let at = 0; at < count;) {
      const read = await this.#connection.read(bytes.subarray(at)).catch(() => null);
      if (read === null) return undefined;
      at += read;
    }
    return bytes;
  }

  /** @returns The next frame; undefined at the end. HEARTBEATs are passed over. */
  async hear(): Promise<RawFrame | undefined> {
    for (;;) {
      const bytes = await this.read(HEADER_BYTES);
      if (bytes === undefined) return undefined;
      const header = decodeHeader(bytes, 0, HEADER_BYTES, 0)!;
      const payload = await this.read(header.lengthBytes);
      if (payload === undefined) return undefined;
      if (header.command !== TXN.HEARTBEAT) return { ...header, payload };
    }
  }

  /** @returns All frames up to the end. */
  async hearAll(): Promise<RawFrame[]> {
    const frames: RawFrame[] = [];
    for (let frame = await this.hear(); frame !== undefined; frame = await this.hear()) {
      frames.push(frame);
    }
    return frames;
  }

  /** Hears a frame of this command, and no other. */
  async expect(command: number): Promise<RawFrame> {
    const frame = await this.hear();
    const text = frame?.command === TXN.NACK ? new TextDecoder().decode(frame.payload) : "";
    assert.equal(frame?.command, command, `${text}`);
    return frame!;
  }

  /** Speaks first, as a sender. @returns What the receiver says of itself. */
  async greet(change: Partial<Hello> = {}): Promise<Hello> {
    await this.say(rawHello(change));
    return decodeHello((await this.expect(TXN.HELLO)).payload, 0);
  }

  /**
   * Answers a sender as a receiver: its HELLO, and every COMMIT.
   *
   * @returns What it has said, when it has begun to say HANDOVER; half of that frame is not read, so that
   *   to close the connection now resets it.
   */
  async receiveUntilHandover(features: number): Promise<RawFrame[]> {
    const hello = await this.expect(TXN.HELLO);
    const { session } = decodeHello(hello.payload, 0);
    await this.say(rawHello({ features, session }));
    const said: RawFrame[] = [hello];
    for (;;) {
      const begun = await this.read(HEADER_BYTES / 2);
      assert.ok(begun !== undefined, "the sender stays until the end");
      if (begun[2] === TXN.HANDOVER) return said;
      const bytes = concat(begun, (await this.read(HEADER_BYTES / 2))!);
      const header = decodeHeader(bytes, 0, HEADER_BYTES, 0)!;
      said.push({ ...header, payload: (await this.read(header.lengthBytes))! });
      const { command, transaction } = header;
      if (command === TXN.COMMIT) await this.say(rawFrame({ command: TXN.ACK, transaction }));
    }
  }

  /** Says no more; hears on. */
  async closeOutput(): Promise<void> {
    await this.#connection.closeWrite();
  }

  /** May be called again. */
  close(): void {
    if (!this.#isClosed) this.#connection.close();
    this.#isClosed = true;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
