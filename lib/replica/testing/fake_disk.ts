/** For tests: a disk in memory that knows its holes, and can be made to refuse. */
import { TransportError } from "../../errors.ts";
import { type Done, raise } from "../events/done.ts";
import type { DiskStore } from "../events/primary_disk_tap.ts";
import type { DiskCopy } from "../events/disk_copy.ts";

const HOLE_BYTES = 4096;

export class FakeDisk implements DiskStore, DiskCopy {
  readonly sizeBytes: number;
  readonly bytes: Uint8Array;
  /** How many writes, of data or zeros, fit before it is full; the next one is made by half. */
  writesLeft = Infinity;
  /** The error of every change, which is then not made. */
  refusal: Error | undefined;
  /** How many bytes were read. */
  readBytes = 0;
  readonly #written: Uint8Array;

  constructor(content: number | Uint8Array) {
    this.bytes = typeof content === "number" ? new Uint8Array(content) : content.slice();
    this.sizeBytes = this.bytes.length;
    const filled = typeof content === "number" ? 0 : 1;
    this.#written = new Uint8Array(Math.ceil(this.sizeBytes / HOLE_BYTES)).fill(filled);
  }

  read(into: Uint8Array, offset: number, done: Done = raise): void {
    this.#whenDone(() => {
      into.set(this.bytes.subarray(offset, offset + into.length));
      this.readBytes += into.length;
    }, done);
  }

  write(offset: number, data: Uint8Array, done: Done = raise): void {
    this.#whenDone(() => {
      if (this.refusal !== undefined) return this.refusal;
      const isFull = this.writesLeft-- <= 0;
      const part = isFull ? data.subarray(0, data.length / 2) : data;
      this.bytes.set(part, offset);
      this.#written.fill(1, Math.floor(offset / HOLE_BYTES), this.#pageEnd(offset + part.length));
      return isFull ? this.#refusal() : undefined;
    }, done);
  }

  zero(offset: number, lengthBytes: number, done: Done = raise): void {
    this.#whenDone(() => {
      if (this.refusal !== undefined) return this.refusal;
      if (this.writesLeft-- <= 0) return this.#refusal();
      const end = offset + lengthBytes;
      this.bytes.fill(0, offset, end);
      const last = end === this.sizeBytes ? this.#pageEnd(end) : Math.floor(end / HOLE_BYTES);
      this.#written.fill(0, this.#pageEnd(offset), last);
    }, done);
  }

  zeroBytes(
    offset: number,
    lengthBytes: number,
    told: (zeroBytes: number, error?: Error) => void,
  ): void {
    let found = 0;
    this.#whenDone(() => {
      let page = Math.floor(offset / HOLE_BYTES);
      while (page < this.#written.length && this.#written[page] === 0) page++;
      found = Math.max(0, Math.min(lengthBytes, page * HOLE_BYTES - offset));
    }, () => told(found));
  }

  /** While true, no call is carried out until {@link step} does the oldest. */
  isStalled = false;
  readonly #calls: (() => void)[] = [];

  /** How many calls wait. */
  get waiting(): number {
    return this.#calls.length;
  }

  /** Carries out the oldest waiting call. @returns False if there is none. */
  step(): boolean {
    const call = this.#calls.shift();
    call?.();
    return call !== undefined;
  }

  /** Carries out all waiting calls, and those that follow from them. */
  drain(): void {
    while (this.step());
  }

  /** Drops the waiting calls, as if the process had died. */
  forgetCalls(): void {
    this.#calls.length = 0;
  }

  #whenDone(act: () => Error | void, done: Done): void {
    const call = () => done(act() ?? undefined);
    if (this.isStalled || this.waiting > 0) this.#calls.push(call);
    else call();
  }

  #pageEnd(offset: number): number {
    return Math.ceil(offset / HOLE_BYTES);
  }

  #refusal(): Error {
    this.writesLeft = 0;
    return new TransportError("fake", "write", "disk full", { party: "disk" });
  }
}
