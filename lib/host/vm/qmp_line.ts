/**
 * What carries QMP's bytes: a socket of the runtime, or a socket on the reactor that protects the
 * VM.
 */
import { OutputQueue, readSome } from "../system/channel.ts";
import { sendWithDescriptors } from "../system/descriptor_passing.ts";
import { libc } from "../system/libc.ts";
import type { QmpAddress } from "./qmp_address.ts";
import type { Reactor, Watch } from "../system/reactor.ts";
import { connectSocket } from "../system/socket.ts";
import { SHUT_RDWR } from "../system/linux.ts";

const READ_BYTES = 64 * 1024;

/** The owner of a line. */
export interface QmpLineOwner {
  /** @throws {WireError} The bytes are no QMP: the line then ends with this error. */
  received(bytes: Uint8Array): void;
  /**
   * The line has ended. Called once. @param reason Undefined if QEMU or the owner closed the line.
   */
  ended(reason?: unknown): void;
}

/** A connection. Bytes sent before the owner is told of the end may be lost. */
export interface QmpLine {
  /** @param fd Passed with the bytes, where {@link passesDescriptors}; stays the caller's. */
  send(bytes: Uint8Array, fd?: number): void;
  /** Whether a descriptor can go with what is sent. */
  readonly passesDescriptors: boolean;
  /** Resolves when the owner has been told. */
  close(): Promise<void>;
}

/** Connects by the runtime. @throws What `Deno.connect` throws. */
export async function openRuntimeLine(address: QmpAddress, owner: QmpLineOwner): Promise<QmpLine> {
  const connection = address.kind === "unix"
    ? await Deno.connect({ transport: "unix", path: address.path })
    : await Deno.connect({ hostname: address.host, port: address.port });
  const close = () => {
    try {
      connection.close();
    } catch {
      // The connection was closed before.
    }
  };
  const read = async () => {
    const buffer = new Uint8Array(READ_BYTES);
    try {
      for (;;) {
        const length = await connection.read(buffer);
        if (length === null) break;
        owner.received(buffer.subarray(0, length));
      }
      owner.ended();
    } catch (error) {
      owner.ended(error);
    }
    close();
  };
  // The owner gets its line before any bytes.
  const reading = Promise.resolve().then(read);
  let writing: Promise<void> = Promise.resolve();
  return {
    passesDescriptors: false,
    send(bytes) {
      writing = writing.then(async () => {
        for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at));
      }).catch(close); // The reader finds the connection broken too, and knows why.
    },
    close() {
      close();
      return reading;
    },
  };
}

/**
 * Connects on a reactor. While a reactor is busy, the runtime serves its own sockets some twice a
 * second (measured); a request for a checkpoint, which goes by QMP, must not wait for that.
 *
 * @throws {TransportError} Its `cause` is the error's number.
 */
export async function openReactorLine(
  address: QmpAddress,
  owner: QmpLineOwner,
  reactor: Reactor,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<QmpLine> {
  const fd = await connectSocket(address, reactor, timeoutMs, signal, "qemu");
  return new ReactorLine(fd, address, owner, reactor);
}

class ReactorLine implements QmpLine {
  readonly #fd: number;
  readonly #path: string;
  readonly #owner: QmpLineOwner;
  readonly #output: OutputQueue;
  readonly #buffer = new Uint8Array(READ_BYTES);
  readonly #watch: Watch;
  #closed = false;

  readonly passesDescriptors: boolean;

  constructor(fd: number, address: QmpAddress, owner: QmpLineOwner, reactor: Reactor) {
    this.#fd = fd;
    this.#path = address.text;
    this.passesDescriptors = address.kind === "unix";
    this.#owner = owner;
    this.#output = new OutputQueue(fd, address.text, "qemu");
    this.#watch = reactor.watch(fd, {
      readable: () => this.#read(),
      writable: () => this.#flush(),
    });
    this.#watch.want(true, false);
    // A reactor that sleeps does not wait for this descriptor yet.
    reactor.wake();
  }

  send(bytes: Uint8Array, fd?: number): void {
    if (this.#closed) return;
    // A descriptor belongs to the bytes that it is sent with: everything before them must be
    // written first.
    if (fd !== undefined && this.#output.flush()) {
      bytes = bytes.subarray(sendWithDescriptors(this.#fd, bytes, [fd], this.#path, "qemu"));
    }
    this.#output.push([bytes]);
    this.#flush();
  }

  close(): Promise<void> {
    this.#end();
    return Promise.resolve();
  }

  #flush(): void {
    try {
      this.#watch.want(true, !this.#output.flush());
    } catch {
      // Read to the end first: the last bytes may say why.
      this.#watch.want(true, false);
    }
  }

  #read(): void {
    try {
      const count = readSome(this.#fd, this.#buffer, this.#path, "qemu");
      if (count === undefined) return;
      if (count === 0) return this.#end();
      this.#owner.received(this.#buffer.subarray(0, count));
    } catch (error) {
      this.#end(error);
    }
  }

  #end(reason?: unknown): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#watch.stop();
    // A reactor that sleeps keeps the descriptor open, but QEMU is to see the end now.
    libc().shutdown(this.#fd, SHUT_RDWR);
    libc().close(this.#fd);
    this.#owner.ended(reason);
  }
}
