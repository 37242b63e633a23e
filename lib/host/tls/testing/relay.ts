/** For tests: a man in the middle of a connection, who records, changes and cuts. */
import { libc } from "../../system/libc.ts";
import type { Reactor, Watch } from "../../system/reactor.ts";
import { SHUT_WR } from "../../system/linux.ts";

/** The most bytes that are recorded of each direction. */
const RECORDED_BYTES = 1 << 16;

/**
 * Decides what happens to bytes on their way.
 *
 * @param offset Offset of the first byte since the connection began.
 * @returns The bytes to pass on; undefined cuts the connection in both directions without notice.
 */
export type Tamper = (bytes: Uint8Array, offset: number) => Uint8Array | undefined;

/** The man in the middle. */
export class Relay {
  readonly #reactor: Reactor;
  readonly #fds: readonly [number, number];
  readonly #watches: Watch[];
  #isCut = false;
  /** All bytes that were sent from left to right, and back. */
  readonly recorded = { up: [] as number[], down: [] as number[] };

  /** @param left Closed together with this object, as `right` is: non-blocking sockets. */
  constructor(
    reactor: Reactor,
    left: number,
    right: number,
    { up, down }: { readonly up?: Tamper; readonly down?: Tamper } = {},
  ) {
    this.#reactor = reactor;
    this.#fds = [left, right];
    this.#watches = [
      ...this.#pass(left, right, this.recorded.up, up),
      ...this.#pass(right, left, this.recorded.down, down),
    ];
  }

  /** Cuts both connections, like a router that dies. */
  cut(): void {
    if (this.#isCut) return;
    this.#isCut = true;
    for (const watch of this.#watches) watch.stop();
    for (const fd of this.#fds) libc().close(fd);
  }

  #pass(from: number, to: number, record: number[], tamper?: Tamper): Watch[] {
    const buffer = new Uint8Array(65536);
    let offset = 0;
    let waiting: Uint8Array[] = [];
    const output = this.#reactor.watch(to, { writable: () => write() });
    const write = () => {
      while (waiting.length > 0) {
        const piece = waiting[0] as Uint8Array<ArrayBuffer>;
        const count = Number(libc().write(to, piece, BigInt(piece.length)));
        if (count < 0) break;
        if (count < piece.length) waiting[0] = piece.subarray(count);
        else waiting = waiting.slice(1);
      }
      output.want(false, waiting.length > 0);
      input.want(waiting.length === 0, false);
    };
    const input = this.#reactor.watch(from, {
      readable: () => {
        const count = Number(libc().read(from, buffer, BigInt(buffer.length)));
        if (count === 0) {
          input.want(false, false);
          return void libc().shutdown(to, SHUT_WR);
        }
        if (count < 0) return this.cut();
        const bytes = buffer.slice(0, count);
        if (record.length < RECORDED_BYTES) { for (const byte of bytes) record.push(byte); }
        const passed = tamper === undefined ? bytes : tamper(bytes, offset);
        offset += count;
        if (passed === undefined) return this.cut();
        if (passed.length > 0) waiting.push(passed);
        write();
      },
    });
    input.want(true, false);
    return [input, output];
  }
}
