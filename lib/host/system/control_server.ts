/**
 * The control socket: one JSON line in, one JSON line out. The messages are in lib/control/.
 * Requests of a client are answered in their order, each when it is done.
 */
import {
  type ControlAnswer,
  encodeAnswer,
  type Refusal,
  refusalOf,
  refuseCommand,
} from "../../control/answer.ts";
import type { AttachPlace, AttachRequest } from "../../control/attach_request.ts";
import { LineDecoder } from "../../control/line_decoder.ts";
import type { ProtectRequest } from "../../control/protect_request.ts";
import { decodeRequest, MAX_REQUEST_BYTES } from "../../control/request.ts";
import type { SenderDurations } from "../../control/sender_status.ts";
import type { EarlyEndStatus, EndStatus } from "../../control/end_status.ts";
import { parseControlPath } from "./control_path.ts";
import { libc } from "./libc.ts";
import { OutputQueue } from "./channel.ts";
import { receiveWithDescriptors } from "./descriptor_passing.ts";
import type { Reactor, Watch } from "./reactor.ts";
import { type Listener, listenSocket } from "./socket.ts";

/** Descriptors that a line may come with: one to read from, and one to write to. */
const MOST_PASSED = 2;
/** Whoever may use a control socket may make a VM start. */
const OWNER_ONLY = 0o600;

/** What other processes may ask of a running end. */
export interface ControlHandlers {
  status(): EndStatus | EarlyEndStatus;
  /** The last durations of each kind; a sender only. */
  durations?(): SenderDurations;
  /**
   * Takes the VM over. Resolves when that is done, rejects with the reason if it cannot be done.
   *
   * @param stale Whether the replica is to be started even if it is known to be old.
   */
  failover?(stale: boolean): Promise<void>;
  /**
   * Protects the VM that this end has taken over; resolves when the protection ends. See {@link
   * Survivor}.
   *
   * @param gone Aborted when the client that asked is gone.
   */
  protect?(request: ProtectRequest<unknown>, gone: AbortSignal): Promise<void>;
  /**
   * Lets in a sender that comes by ssh; a receiver only.
   *
   * @param passed Descriptors that came with the request, the handler's from now on.
   * @returns Where the sender can connect to, at once. For a sender that stays on ssh: nothing, when
   *   its session has ended.
   */
  attach?(request: AttachRequest, passed: number[]): Promise<AttachPlace | undefined>;
}

/** Serves a control socket on the reactor. */
export class ControlServer {
  readonly #reactor: Reactor;
  readonly #listener: Listener;
  readonly #handlers: ControlHandlers;
  readonly #watch: Watch;
  readonly #clients = new Set<ControlClient>();

  /**
   * @param path See {@link parseControlPath}.
   * @throws {TransportError} if the path cannot be used.
   */
  static async open(
    path: string,
    handlers: ControlHandlers,
    reactor: Reactor,
    signal: AbortSignal,
  ): Promise<ControlServer> {
    const plain = parseControlPath(path);
    const address = { kind: "unix", path: plain, text: plain } as const;
    const admit = () => {};
    const listener = await listenSocket(address, reactor, signal, admit, OWNER_ONLY);
    return new ControlServer(listener, handlers, reactor);
  }

  private constructor(listener: Listener, handlers: ControlHandlers, reactor: Reactor) {
    this.#listener = listener;
    this.#handlers = handlers;
    this.#reactor = reactor;
    this.#watch = reactor.watch(listener.fd, {
      readable: () => {
        const fd = this.#listener.accept();
        if (fd === undefined) return;
        const client = new ControlClient(fd, this.#reactor, this.#handlers, () => {
          this.#clients.delete(client);
        });
        this.#clients.add(client);
      },
    });
    this.#watch.want(true, false);
  }

  close(): void {
    for (const client of this.#clients) client.close();
    this.#watch.stop();
    this.#listener.close();
  }
}

class ControlClient {
  readonly #fd: number;
  readonly #handlers: ControlHandlers;
  readonly #output: OutputQueue;
  readonly #watch: Watch;
  readonly #onClose: () => void;
  readonly #requests = new LineDecoder(MAX_REQUEST_BYTES, "control socket");
  #answered: Promise<void> = Promise.resolve();
  /** Descriptors that have come with the line that is being read. */
  #passed: number[] = [];
  readonly #gone = new AbortController();
  #closed = false;

  constructor(fd: number, reactor: Reactor, handlers: ControlHandlers, onClose: () => void) {
    this.#fd = fd;
    this.#handlers = handlers;
    this.#onClose = onClose;
    this.#output = new OutputQueue(fd, "control socket", "control");
    this.#watch = reactor.watch(fd, {
      readable: () => this.#guard(() => this.#read()),
      writable: () => this.#guard(() => this.#flush()),
    });
    this.#watch.want(true, false);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#watch.stop();
    libc().close(this.#fd);
    closeAll(this.#passed);
    this.#gone.abort();
    this.#onClose();
  }

  /** A client whose connection fails has no part in what this end does: the error ends there. */
  #guard(action: () => void): void {
    try {
      action();
    } catch {
      this.close();
    }
  }

  #read(): void {
    const buffer = new Uint8Array(MAX_REQUEST_BYTES);
    const { count, fds } = receiveWithDescriptors(this.#fd, buffer, "control socket", "control");
    this.#passed.push(...fds);
    if (count === undefined) return;
    if (count === 0 || this.#passed.length > MOST_PASSED) return this.close();
    for (const line of this.#requests.receive(buffer.subarray(0, count))) {
      // In the order of the requests: a status that is asked for after a failover waits for the
      // failover.
      const passed = this.#passed;
      this.#passed = [];
      this.#answered = this.#answered.then(() => this.#answer(line, passed)).then((reply) =>
        this.#guard(() => {
          if (this.#closed) return;
          this.#output.push([new TextEncoder().encode(encodeAnswer(reply))]);
          this.#flush();
        })
      );
    }
  }

  /** @param passed Descriptors that came with the line; those that no handler takes are closed. */
  async #answer(line: string, passed: number[]): Promise<ControlAnswer> {
    const { status, durations, failover, protect, attach } = this.#handlers;
    try {
      const request = decodeRequest(line);
      if (!("command" in request)) return request;
      switch (request.command) {
        case "status":
          return status();
        case "durations":
          return durations === undefined ? refuseCommand(request.command) : durations();
        case "failover":
          if (failover === undefined) {
            return refuse("a sender: it cannot take over", "ask the secondary's kemari recv");
          }
          await failover(request.stale);
          return { ok: true };
        case "protect":
          if (protect === undefined) {
            return refuse("a sender: it protects a VM already", "run kemari protect without --via");
          }
          await protect(request, this.#gone.signal);
          return { ok: true };
        case "attach":
          if (attach === undefined) {
            return refuse("a sender: no other connects to it", "name the socket of a kemari recv");
          }
          return { ok: true, ...await attach(request, passed.splice(0)) };
      }
    } catch (error) {
      return refusalOf(error);
    } finally {
      closeAll(passed);
    }
  }

  #flush(): void {
    this.#watch.want(true, !this.#output.flush());
  }
}

function closeAll(fds: readonly number[]): void {
  for (const fd of fds) libc().close(fd);
}

function refuse(what: string, hint: string): Refusal {
  return { error: `this end is ${what}`, hint };
}
