import type { Reactor, Watch, WatchHandlers } from "../system/reactor.ts";
import type { Descriptors } from "../system/transport.ts";

/** The events that a connection waits for before it can be read or written. */
export interface TlsNeeds {
  /** While true, both reading and writing wait for {@link readNeeds}. */
  readonly isShaking: boolean;
  /** What the descriptor must be ready for before a read, or the handshake, can continue. */
  readonly readNeeds: "read" | "write";
  readonly writeNeeds: "read" | "write";
  /** Whether decrypted bytes, or the end, may be in memory already: no descriptor reports these. */
  readonly mayHaveMore: boolean;
}

/** Waits until a TLS connection is readable or writable for its callers. */
export class TlsWatch implements Watch {
  readonly #reactor: Reactor;
  readonly #needs: TlsNeeds;
  readonly #handlers: WatchHandlers;
  readonly #input: Watch;
  readonly #output: Watch;
  #reads = false;
  #writes = false;
  #stopped = false;
  #cancelSoon: (() => void) | undefined;

  constructor(reactor: Reactor, on: Descriptors, needs: TlsNeeds, handlers: WatchHandlers) {
    this.#reactor = reactor;
    this.#needs = needs;
    this.#handlers = handlers;
    this.#input = reactor.watch(on.input, { readable: () => this.#ready("read") });
    this.#output = reactor.watch(on.output, { writable: () => this.#ready("write") });
  }

  want(readable: boolean, writable: boolean): void {
    this.#reads = readable;
    this.#writes = writable;
    this.#wait();
  }

  stop(): void {
    this.#stopped = true;
    this.#cancelSoon?.();
    this.#input.stop();
    this.#output.stop();
  }

  /** Notes that a descriptor is ready. */
  #ready(what: "read" | "write"): void {
    const { isShaking, readNeeds, writeNeeds } = this.#needs;
    if (isShaking ? readNeeds === what && (this.#reads || this.#writes) : false) {
      if (this.#reads) this.#handlers.readable?.();
      // Callers that waited for the handshake can go on.
      if (this.#mayWrite && (!this.#needs.isShaking || !this.#reads)) this.#handlers.writable?.();
    } else {
      if (this.#reads && readNeeds === what) this.#handlers.readable?.();
      if (this.#mayWrite && writeNeeds === what) this.#handlers.writable?.();
    }
    this.#wait();
  }

  get #mayWrite(): boolean {
    return !this.#stopped && this.#writes;
  }

  /** Watches the descriptors for the events that are needed now. */
  #wait(): void {
    if (this.#stopped) return;
    const { isShaking, readNeeds, writeNeeds, mayHaveMore } = this.#needs;
    const reads = this.#reads || isShaking && this.#writes;
    const writes = this.#writes && !isShaking;
    const needs = (what: "read" | "write") =>
      reads && readNeeds === what || writes && writeNeeds === what;
    this.#input.want(needs("read"), false);
    this.#output.want(false, needs("write"));
    if (!this.#reads || !mayHaveMore) {
      this.#cancelSoon?.();
      this.#cancelSoon = undefined;
      return;
    }
    this.#cancelSoon ??= this.#reactor.after(0, () => {
      this.#cancelSoon = undefined;
      if (this.#reads) this.#handlers.readable?.();
      this.#wait();
    });
  }
}
