import { KemariError, StateError, TransportError } from "../../errors.ts";
import type { FramePort } from "./frame_port.ts";
import { FrameSocket } from "./frame_socket.ts";
import type { Reactor, Watch } from "../system/reactor.ts";
import { connectSocket } from "../system/socket.ts";
import { TapDevice } from "./tap_device.ts";
import type { NetOutAddress } from "./net_tap_address.ts";

const CONNECT_TIMEOUT_MS = 1000;
/** An OUT that has taken nothing for this time is stuck. */
const STUCK_MS = 1000;
/** How often an OUT that is gone is tried again. */
const REOPEN_MS = 500;

/** Callbacks of the world's side of a tap. Called on the loop; must not block. */
interface NetOutHandlers {
  /** There are frames for the guest to be read. */
  readable(): void;
  /** OUT takes frames again. */
  writable(): void;
  /** OUT has failed. From now on kemari tries to open it again. */
  fault(error: KemariError): void;
  restored(): void;
}

/** The world's side of a tap: a TAP or a socket, which may go away and come back. */
export class NetOut {
  #watch: Watch | undefined;
  #isBlocked = false;
  #wantsFrames = true;
  #cancelRetry: (() => void) | undefined;
  #cancelReopen: (() => void) | undefined;
  #refusedBefore = 0;
  /** Since when OUT has taken nothing: the time of the first frame that it did not take. */
  #stuckSince: number | undefined;
  readonly #closing = new AbortController();

  private constructor(
    private readonly address: NetOutAddress,
    private readonly reactor: Reactor,
    private readonly maxFrameBytes: number | undefined,
    private readonly handlers: NetOutHandlers,
    private port: FramePort | undefined,
  ) {
    this.#watchPort();
  }

  /**
   * Attaches to the TAP, making it if need be, or connects.
   *
   * @throws {TransportError} with a hint: no permission, no such device, nobody listens there.
   */
  static async open(
    address: NetOutAddress,
    reactor: Reactor,
    maxFrameBytes: number | undefined,
    handlers: NetOutHandlers,
    signal: AbortSignal,
  ): Promise<NetOut> {
    const port = await openPort(address, reactor, maxFrameBytes, signal, true);
    return new NetOut(address, reactor, maxFrameBytes, handlers, port);
  }

  get isConnected(): boolean {
    return this.port !== undefined;
  }

  /** Whether OUT has taken nothing for a while: it is down, gone, or nobody reads it. */
  get isStuck(): boolean {
    return this.#stuckSince !== undefined && performance.now() - this.#stuckSince > STUCK_MS;
  }

  /** How many frames were dropped because the world's side would never take them. */
  get refusedFrames(): number {
    return this.#refusedBefore + (this.port?.refusedFrames ?? 0);
  }

  /**
   * @returns Whether the frame was taken; if not, `writable` is called when it can be tried again.
   */
  send(frame: Uint8Array): boolean {
    if (this.port === undefined || this.#isBlocked) return false;
    try {
      if (this.port.send(frame)) {
        if (this.#stuckSince !== undefined) this.#stuckSince = performance.now();
        return true;
      }
      this.#block();
    } catch (error) {
      this.#gone(error);
    }
    return false;
  }

  /** @returns Whether all that was taken is written. */
  flush(): boolean {
    if (this.port === undefined) return false;
    try {
      if (this.port.flush()) {
        if (!this.#isBlocked) this.#stuckSince = undefined;
        return true;
      }
      this.#block();
    } catch (error) {
      this.#gone(error);
    }
    return false;
  }

  /** Reads frames for the guest, at most about `budgetBytes`; views, valid during the call. */
  receive(budgetBytes: number, onFrame: (frame: Uint8Array) => void): void {
    if (this.port === undefined) return;
    try {
      if (this.port.receive(budgetBytes, onFrame) !== "end") return;
      this.#gone(
        new TransportError(this.port.name, "read", "the other side has closed the connection", {
          party: "net",
        }),
      );
    } catch (error) {
      this.#gone(error);
    }
  }

  /** Whether frames for the guest are wanted now. */
  want(frames: boolean): void {
    this.#wantsFrames = frames;
    // A port that cannot tell when it takes frames again is tried again after a time.
    this.#watch?.want(frames, this.#isBlocked && this.#cancelRetry === undefined);
  }

  close(): void {
    this.#closing.abort(new StateError("the tap is closed"));
    this.#cancelRetry?.();
    this.#cancelReopen?.();
    this.#watch?.stop();
    this.port?.close();
    this.port = undefined;
  }

  #block(): void {
    this.#isBlocked = true;
    this.#stuckSince ??= performance.now();
    const retryMs = this.port?.retryMs;
    if (retryMs !== undefined) {
      this.#cancelRetry ??= this.reactor.after(retryMs, () => this.#unblock());
    }
    this.want(this.#wantsFrames);
  }

  #unblock(): void {
    this.#cancelRetry?.();
    this.#cancelRetry = undefined;
    this.#isBlocked = false;
    this.want(this.#wantsFrames);
    this.handlers.writable();
  }

  #watchPort(): void {
    if (this.port === undefined) return;
    this.#watch = this.reactor.watch(this.port.fd, {
      readable: () => this.handlers.readable(),
      writable: () => this.#unblock(),
    });
    this.want(this.#wantsFrames);
  }

  #gone(error: unknown): void {
    this.#refusedBefore = this.refusedFrames;
    this.#watch?.stop();
    this.#watch = undefined;
    this.#cancelRetry?.();
    this.#cancelRetry = undefined;
    this.#isBlocked = false;
    this.#stuckSince ??= performance.now();
    this.port?.close();
    this.port = undefined;
    // Faults of this side go to the owner; any other error is a bug and ends the loop.
    if (!(error instanceof KemariError) || error instanceof StateError) throw error;
    this.#reopenLater();
    this.handlers.fault(error);
  }

  #reopenLater(): void {
    this.#cancelReopen = this.reactor.after(REOPEN_MS, () => void this.#reopen());
  }

  /**
   * Opens OUT again. A TAP is not made anew: a TAP of our making would not be in the operator's
   * bridge.
   */
  async #reopen(): Promise<void> {
    const { signal } = this.#closing;
    try {
      const port = await openPort(this.address, this.reactor, this.maxFrameBytes, signal, false);
      if (signal.aborted) return port.close();
      this.port = port;
    } catch {
      if (!signal.aborted) this.#reopenLater();
      return;
    }
    // On the loop, not in this task, so that errors of handlers end the loop.
    this.reactor.after(0, () => {
      if (this.port === undefined) return;
      this.#watchPort();
      this.handlers.restored();
      this.handlers.writable();
    });
    this.reactor.wake();
  }
}

async function openPort(
  address: NetOutAddress,
  reactor: Reactor,
  maxFrameBytes: number | undefined,
  signal: AbortSignal,
  create: boolean,
): Promise<FramePort> {
  if (address.kind === "tap") return TapDevice.open(address.ifname, { create });
  try {
    const fd = await connectSocket(address, reactor, CONNECT_TIMEOUT_MS, signal, "net");
    return new FrameSocket(fd, address.text, maxFrameBytes);
  } catch (cause) {
    signal.throwIfAborted();
    if (!(cause instanceof TransportError)) throw cause;
    throw new TransportError(address.text, "connect", "nobody listens there", {
      party: "net",
      hint: "OUT unix:PATH must be a listening socket that speaks -netdev stream, such as a " +
        "QEMU's -netdev stream,server=on or a switch; start it first",
      cause,
    });
  }
}
