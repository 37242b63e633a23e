import { OutputQueue, type ReadResult, readSome } from "../system/channel.ts";
import type { Reactor, Watch } from "../system/reactor.ts";
import type { QemuChannel } from "./sender_link_settings.ts";

/** QEMU's channel while a link reads its stream and answers; the descriptors stay the caller's. */
export class AttachedQemu {
  readonly #channel: QemuChannel;
  readonly #input: Watch;
  readonly #output: Watch;
  /** Undefined if the channel has no way back. */
  #replies: OutputQueue | undefined;
  #hasEnded = false;

  constructor(
    reactor: Reactor,
    channel: QemuChannel,
    handlers: { readonly readable: () => void; readonly writable: () => void },
  ) {
    const { input, output, name } = channel;
    this.#channel = channel;
    if (output >= 0) this.#replies = new OutputQueue(output, name, "qemu");
    this.#input = reactor.watch(input, { readable: handlers.readable });
    this.#output = reactor.watch(output, { writable: handlers.writable });
  }

  /** Nothing more can be read: every byte was, or the channel is broken. That is found once. */
  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /** Whether QEMU can be answered. */
  get hears(): boolean {
    return this.#replies !== undefined;
  }

  /** @throws {TransportError} */
  read(room: Uint8Array<ArrayBuffer>): ReadResult {
    let count: ReadResult = 0;
    try {
      count = readSome(this.#channel.input, room, this.#channel.name, "qemu");
    } finally {
      if (count === 0) this.#end();
    }
    return count;
  }

  #end(): void {
    this.#hasEnded = true;
    this.#input.stop();
  }

  /** Writes what can be written. @throws {TransportError} once: then QEMU cannot be answered any more. */
  answer(replies: readonly Uint8Array[]): void {
    try {
      this.#replies?.push(replies);
      this.#replies?.flush();
    } catch (error) {
      this.#replies = undefined;
      throw error;
    }
  }

  /** Waits for more of the stream, and for room if an answer was not written whole. */
  watch(mayRead: boolean): void {
    this.#input.want(mayRead, false);
    this.#output.want(false, (this.#replies?.pendingBytes ?? 0) > 0);
  }

  /** Waits for nothing any more. */
  stop(): void {
    this.#input.stop();
    this.#output.stop();
  }
}
