/** A QMP connection to QEMU. */
import { type KemariError, TransportError } from "../../errors.ts";
import type { JsonObject, QmpCommand } from "../../qmp/codec.ts";
import { parseQmpAddress, type QmpAddress } from "./qmp_address.ts";
import { connectFailure } from "./qmp_failure.ts";
import { openReactorLine, openRuntimeLine, type QmpLine, type QmpLineOwner } from "./qmp_line.ts";
import type { Reactor } from "../system/reactor.ts";
import { type QmpEvent, type QmpGreeting, QmpSession } from "../../qmp/session.ts";
import { never } from "../system/never.ts";

/** How many events are kept for a reader that does not read; then the oldest are dropped. */
const MAX_WAITING_EVENTS = 10_000;
const DEFAULT_TIMEOUT_MS = 10_000;

/** How to connect. */
interface ConnectSettings {
  readonly timeoutMs?: number;
  readonly reactor?: Reactor;
}

/** How long to wait, and how to send. */
interface ExecuteSettings {
  /** Default: {@link QmpClient.patienceMs}. */
  readonly timeoutMs?: number;
  /** Whether to execute the command ahead of commands that still run, where QEMU offers that. */
  readonly outOfBand?: boolean;
}

interface Waiting {
  resolve(value: unknown): void;
  reject(error: KemariError): void;
}

/**
 * One connection to a QEMU. Commands may overlap; each answer is matched to its command.
 *
 * The caller of {@link connect} owns the client and closes it. When the connection ends, every open
 * command is rejected with the reason, event readers end, and {@link closed} resolves.
 */
export class QmpClient implements AsyncDisposable {
  readonly #address: QmpAddress;
  #line: QmpLine | undefined;
  readonly #session = new QmpSession();
  readonly #waiting = new Map<number, Waiting>();
  readonly #readers = new Set<EventReader>();
  readonly #ready = Promise.withResolvers<QmpGreeting>();
  readonly #closed = Promise.withResolvers<KemariError | undefined>();
  #failure: KemariError | undefined;
  #isClosing = false;
  /** How long an answer may take, in milliseconds, unless a command's settings say otherwise. */
  patienceMs = DEFAULT_TIMEOUT_MS;
  readonly #listeners = new Set<(event: QmpEvent) => void>();

  private constructor(address: QmpAddress) {
    this.#address = address;
    // A failure must not count as unhandled if nobody waits.
    this.#ready.promise.catch(() => {});
  }

  /**
   * Connects and negotiates.
   *
   * @param path QEMU's QMP socket, see {@link parseQmpAddress}.
   * @param settings `timeoutMs` for connecting and negotiating; default 10,000. With `reactor` the
   *   connection is on that reactor, which has to run for anything to be answered.
   * @throws {TransportError} If there is no such socket, or no greeting in time.
   * @throws {WireError} If the answer is not QMP.
   */
  static async connect(path: string, settings: ConnectSettings = {}): Promise<QmpClient> {
    const { reactor, timeoutMs = DEFAULT_TIMEOUT_MS } = settings;
    const address = parseQmpAddress(path);
    const client = new QmpClient(address);
    const owner: QmpLineOwner = {
      received: (bytes) => client.#received(bytes),
      ended: (reason) => client.#lineEnded(reason),
    };
    try {
      client.#line = reactor === undefined
        ? await openRuntimeLine(address, owner)
        : await openReactorLine(address, owner, reactor, timeoutMs, never);
    } catch (cause) {
      throw connectFailure(address, cause);
    }
    try {
      await client.#inTime(
        client.#ready.promise,
        settings.timeoutMs,
        () =>
          new TransportError(address.text, "connect", "QEMU sends no QMP greeting", {
            party: "qemu",
            hint:
              "QEMU serves one client at a time on a QMP socket: close the other one, or start " +
              "QEMU with a second -qmp",
          }),
      );
    } catch (error) {
      await client.close();
      throw error;
    }
    return client;
  }

  /** The socket's path, or host and port. */
  get path(): string {
    return this.#address.text;
  }

  /** Whether a command can take a descriptor with it. */
  get passesDescriptors(): boolean {
    return this.#line?.passesDescriptors === true;
  }

  /** What QEMU said of itself. */
  greeting(): Promise<QmpGreeting> {
    return this.#ready.promise;
  }

  /** Resolves when the connection has ended: with the reason, or `undefined` after `close()`. */
  get closed(): Promise<KemariError | undefined> {
    return this.#closed.promise;
  }

  /** Whether commands can still be sent: a QEMU that answers too late is not gone. */
  get isOpen(): boolean {
    return this.#failure === undefined && !this.#isClosing;
  }

  /**
   * Executes a command.
   *
   * @returns What QEMU returned.
   * @throws {QemuError} If QEMU refuses it.
   * @throws {TransportError} If the connection ends, or there is no answer in time.
   */
  execute(command: string, args?: JsonObject, settings: ExecuteSettings = {}): Promise<unknown> {
    return this.run(
      { execute: command, arguments: args, outOfBand: settings.outOfBand },
      settings,
    );
  }

  /**
   * Executes a command given as an object; otherwise as {@link execute}.
   *
   * @param settings.fd Given to QEMU with the command, where {@link passesDescriptors}; stays the
   *   caller's.
   */
  async run(
    command: QmpCommand,
    settings: { timeoutMs?: number; fd?: number } = {},
  ): Promise<unknown> {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#isClosing) throw this.#ended("the connection was closed");
    const id = this.#session.command(command);
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#waiting.set(id, { resolve, reject });
    this.#flush(settings.fd);
    const { timeoutMs = this.patienceMs } = settings;
    try {
      return await this.#inTime(
        promise,
        timeoutMs,
        (limit) =>
          new TransportError(this.path, "read", `no answer to ${command.execute} in ${limit} ms`, {
            party: "qemu",
            hint: "QEMU hangs, or its main loop is busy",
          }),
      );
    } finally {
      this.#waiting.delete(id);
    }
  }

  /** Executes commands one after another, until one fails. */
  async runAll(commands: Iterable<QmpCommand>, settings: { timeoutMs?: number } = {}) {
    for (const command of commands) await this.run(command, settings);
  }

  /**
   * Calls back at every event from now on, in the same turn of the reactor in which the event is
   * read; {@link events} may come later while the reactor is busy. The callback must not throw.
   *
   * @returns A function that ends the calls.
   */
  onEvent(callback: (event: QmpEvent) => void): () => void {
    this.#listeners.add(callback);
    return () => this.#listeners.delete(callback);
  }

  /**
   * QEMU's events from now on. Each call has a queue of its own, until its loop ends. The iteration
   * ends when the connection does.
   */
  events(): AsyncIterableIterator<QmpEvent, undefined> {
    const reader = new EventReader((self) => this.#readers.delete(self));
    if (this.#failure !== undefined || this.#isClosing) reader.end();
    else this.#readers.add(reader);
    return reader;
  }

  /**
   * Waits for the next event of a name. Events before the call do not count: call it before the
   * command that causes the event, and await it after.
   *
   * @throws {TransportError} If it does not come in time, or the connection ends.
   */
  async waitEvent(
    name: string,
    timeoutMs: number,
    matches: (event: QmpEvent) => boolean = () => true,
  ): Promise<QmpEvent> {
    const reader = this.events();
    const search = async () => {
      for await (const event of reader) {
        if (event.name === name && matches(event)) return event;
      }
      throw this.#failure ?? this.#ended("the connection was closed");
    };
    try {
      return await this.#inTime(
        search(),
        timeoutMs,
        (limit) =>
          new TransportError(this.path, "read", `no event ${name} in ${limit} ms`, {
            party: "qemu",
          }),
      );
    } finally {
      await reader.return?.();
    }
  }

  /** Closes the connection. QEMU and its VM run on. */
  async close(): Promise<void> {
    this.#isClosing = true;
    await this.#line?.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #received(bytes: Uint8Array): void {
    this.#session.receive(bytes);
    this.#dispatch();
    this.#flush();
  }

  #lineEnded(reason: unknown): void {
    let failure: unknown = reason;
    try {
      if (failure === undefined && !this.#isClosing) this.#session.end();
    } catch (error) {
      failure = error;
    }
    if (failure === undefined) {
      failure = this.#ended("QEMU closed the QMP connection: it has ended or crashed");
    } else if (!(failure instanceof Error && "exitCode" in failure)) {
      failure = new TransportError(this.path, "read", "the QMP connection broke", {
        party: "qemu",
        cause: failure,
      });
    }
    this.#finish(failure as KemariError);
  }

  #dispatch(): void {
    for (;;) {
      const notice = this.#session.take();
      if (notice === undefined) return;
      switch (notice.kind) {
        case "ready":
          this.#ready.resolve(notice.greeting);
          break;
        case "reply":
          this.#waiting.get(notice.id)?.resolve(notice.value);
          break;
        case "failure":
          this.#waiting.get(notice.id)?.reject(notice.error);
          break;
        case "event":
          for (const listener of this.#listeners) listener(notice.event);
          for (const reader of this.#readers) reader.push(notice.event);
      }
    }
  }

  /** Writes the session's output; a descriptor goes with the last piece. */
  #flush(fd?: number): void {
    for (let bytes = this.#session.takeOutput(); bytes !== undefined;) {
      const next = this.#session.takeOutput();
      this.#line?.send(bytes, next === undefined ? fd : undefined);
      bytes = next;
    }
  }

  #finish(failure: KemariError): void {
    this.#failure = this.#isClosing ? this.#ended("the connection was closed") : failure;
    this.#ready.reject(this.#failure);
    for (const { reject } of this.#waiting.values()) reject(this.#failure);
    for (const reader of this.#readers) reader.end();
    this.#closed.resolve(this.#isClosing ? undefined : failure);
  }

  #ended(message: string): TransportError {
    return new TransportError(this.path, "read", message, { party: "qemu" });
  }

  async #inTime<Value>(
    work: Promise<Value>,
    timeoutMs: number = DEFAULT_TIMEOUT_MS,
    failure: (timeoutMs: number) => KemariError,
  ): Promise<Value> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(failure(timeoutMs)), timeoutMs);
    });
    // A rejection that comes after the race is decided must not count as unhandled.
    work.catch(() => {});
    try {
      return await Promise.race([work, late]);
    } finally {
      clearTimeout(timer);
    }
  }
}

/** A queue of events that one reader takes from. */
class EventReader implements AsyncIterableIterator<QmpEvent, undefined> {
  readonly #events: QmpEvent[] = [];
  readonly #forget: (self: EventReader) => void;
  #hasEnded = false;
  #wake: (() => void) | undefined;

  constructor(forget: (self: EventReader) => void) {
    this.#forget = forget;
  }

  push(event: QmpEvent): void {
    this.#events.push(event);
    if (this.#events.length > MAX_WAITING_EVENTS) this.#events.shift();
    this.#wake?.();
  }

  end(): void {
    this.#hasEnded = true;
    this.#wake?.();
  }

  async next(): Promise<IteratorResult<QmpEvent, undefined>> {
    for (;;) {
      const event = this.#events.shift();
      if (event !== undefined) return { value: event, done: false };
      if (this.#hasEnded) return { value: undefined, done: true };
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }

  return(): Promise<IteratorResult<QmpEvent, undefined>> {
    this.end();
    this.#forget(this);
    return Promise.resolve({ value: undefined, done: true });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
