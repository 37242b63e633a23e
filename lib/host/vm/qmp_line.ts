/** What carries QMP's bytes: the runtime's sockets, or the reactor that a VM is protected on. */
import { OutputQueue, readSome } from "../system/channel.ts";
import { sendWithDescriptors } from "../system/descriptor_passing.ts";
import { libc } from "../system/libc.ts";
import type { QmpAddress } from "./qmp_address.ts";
import type { Reactor, Watch } from "../system/reactor.ts";
import { connectSocket } from "../system/socket.ts";
import { SHUT_RDWR } from "../system/linux.ts";

const READ_BYTES = 64 * 1024;

/** Whoever a line is for. */
export interface QmpLineOwner {
  /** @throws {WireError} What came is no QMP: the line then ends with it. */
  received(bytes: Uint8Array): void;
  /** Called once. @param reason Undefined if QEMU closed it, or we did. */
  ended(reason?: unknown): void;
}

/** A connection. What is sent before its owner is told of the end may be lost. */
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
      // Closed before.
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
  // The owner is to have its line before it hears anything.
  const reading = Promise.resolve().then(read);
  let writing: Promise<void> = Promise.resolve();
  return {
    passesDescriptors: false,
    send(bytes) {
      writing = writing.then(async () => {
        for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at));
      }).catch(close); // The reader finds the same connection broken, and knows why.
    },
    close() {
      close();
      return reading;
    },
  };
}

/**
 * Connects on a reactor. While that is busy the runtime's sockets are served some twice a second
 * (measured), and a checkpoint is asked for by QMP: here it takes no turn of the runtime.
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
    // A reactor that sleeps waits for the descriptors that it knew.
    reactor.wake();
  }

  send(bytes: Uint8Array, fd?: number): void {
    if (this.#closed) return;
    // A descriptor belongs to the bytes that it is sent with: what is before them must be out.
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
      // It is read to its end first, which may say why.
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
    // A reactor that sleeps holds on to the descriptor: QEMU is to see the end now.
    libc().shutdown(this.#fd, SHUT_RDWR);
    libc().close(this.#fd);
    this.#owner.ended(reason);
  }
}
