/** Keeps a sender waiting behind its HELLO while the disks' storage is asked about that sender. */
import { KemariError, TransportError } from "../../errors.ts";
import { decodeHello, type Hello } from "../../txn/hello.ts";
import { decodeHeader } from "../../txn/frame_header.ts";
import { HEADER_BYTES, TXN } from "../../txn/wire.ts";
import type { Reactor } from "../system/reactor.ts";

/** Judges a sender by what was found. @throws {WireError} if the sender is not to be admitted. */
type Admit = (offset: number) => void;

/**
 * Examines a sender before it is admitted. This may take as long as the storage takes: nothing else
 * waits.
 *
 * @throws {KemariError} if the sender cannot be examined.
 */
export type LookAtSender = (hello: Hello) => Promise<Admit>;

/**
 * Examines no sender while another examination is under way: an examination that hangs keeps a
 * thread of the runtime, which has few.
 */
export function oneAtATime(look: LookAtSender): LookAtSender {
  let isLooking = false;
  return async (hello) => {
    if (isLooking) throw unanswered("a sender before this one");
    isLooking = true;
    try {
      return await look(hello);
    } finally {
      isLooking = false;
    }
  };
}

function unanswered(who: string): TransportError {
  return new TransportError(
    "recv",
    "read",
    `the storage of the disks here does not answer what it is asked about ${who}`,
    { party: "replica", hint: "repair that storage; the sender tries again" },
  );
}

/** The longest that a sender waits here; half of the sender's patience if that is less. */
const MOST_LOOK_MS = 5000;

/** The owner, which waits for a sender's HELLO. */
interface GateOwner {
  /** {@link HelloGate.take} has bytes now. */
  opened(): void;
  /** The sender cannot be admitted now, for reasons of this end. */
  failed(error: KemariError): void;
}

/**
 * Lets a sender's bytes through when the sender has been examined by the HELLO with which they
 * begin.
 *
 * ```text
 * take() ──no whole HELLO yet──► kept ──take()──► looking ──looked──► open: all that was kept, then
 *    all └──no HELLO at all: open, whoever reads it says so └──too late, failed──► failed()
 * ```
 */
export class HelloGate {
  readonly #reactor: Reactor;
  readonly #look: LookAtSender | undefined;
  readonly #ownGraceMs: number;
  readonly #owner: GateOwner;
  #state: "closed" | "looking" | "open" | "over";
  #kept = new Uint8Array(0);
  #admit: Admit = () => {};
  #stopWaiting = () => {};

  /** Without a `look` all bytes are let through. */
  constructor(
    reactor: Reactor,
    { look, graceMs }: { readonly look?: LookAtSender; readonly graceMs: number },
    owner: GateOwner,
  ) {
    this.#reactor = reactor;
    this.#look = look;
    this.#ownGraceMs = graceMs;
    this.#owner = owner;
    this.#state = look === undefined ? "open" : "closed";
  }

  /** Whether nothing more is to be read until the examination is over. */
  get isLooking(): boolean {
    return this.#state === "looking";
  }

  /** Judges the sender when its HELLO is read. @throws {WireError} */
  admit(offset: number): void {
    this.#admit(offset);
  }

  /**
   * @returns The bytes that may be read now, owned by the caller; `bytes` may be reused unless they
   * are the same.
   */
  take(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
    if (this.#state === "open" && this.#kept.length === 0) return bytes;
    const kept = new Uint8Array(this.#kept.length + bytes.length);
    kept.set(this.#kept);
    kept.set(bytes, this.#kept.length);
    this.#kept = kept;
    if (this.#state === "closed") this.#readHello();
    if (this.#state !== "open") return kept.subarray(0, 0);
    this.#kept = kept.subarray(0, 0);
    return kept;
  }

  close(): void {
    this.#state = "over";
    this.#stopWaiting();
  }

  #readHello(): void {
    try {
      const kept = this.#kept;
      const header = decodeHeader(kept, 0, kept.length, 0);
      if (header === undefined) return;
      if (header.command !== TXN.HELLO) return void (this.#state = "open");
      const end = HEADER_BYTES + header.lengthBytes;
      if (kept.length < end) return;
      this.#start(decodeHello(kept.subarray(HEADER_BYTES, end), HEADER_BYTES));
    } catch (error) {
      if (!(error instanceof KemariError)) throw error;
      this.#state = "open";
    }
  }

  #start(hello: Hello): void {
    this.#state = "looking";
    // 0 says that the sender waits for as long as it takes.
    const patienceMs = Math.min(hello.graceMs || Infinity, this.#ownGraceMs);
    const limitMs = Math.min(MOST_LOOK_MS, patienceMs / 2);
    const done = this.#reactor.awaitRuntime();
    const cancel = this.#reactor.after(limitMs, () => this.#fail(unanswered("the sender")));
    this.#stopWaiting = () => {
      this.#stopWaiting = () => {};
      cancel();
      done();
    };
    this.#look!(hello).then((admit) => {
      if (this.#state !== "looking") return;
      this.#stopWaiting();
      this.#admit = admit;
      this.#state = "open";
      this.#owner.opened();
      this.#reactor.wake();
    }).catch((error) => {
      if (!(error instanceof KemariError)) return this.#reactor.fail(error);
      if (this.#state === "looking") this.#fail(error);
      this.#reactor.wake();
    });
  }

  #fail(error: KemariError): void {
    this.close();
    this.#owner.failed(error);
  }
}
