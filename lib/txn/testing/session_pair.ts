/** For tests: both ends of a session on one fake clock. */
import type { Leave } from "../leave.ts";
import assert from "node:assert/strict";
import { Carry } from "../../bytes/carry.ts";
import { WireError, type WireFault } from "../../errors.ts";
import { type ReceiverConfig, TxnReceiver } from "../receiver.ts";
import type { TransactionVisitor } from "../transaction_visitor.ts";
import { TxnSender } from "../sender.ts";
import type { SenderEvent } from "../sender_config.ts";
import { encodeHeader, type FrameHeader } from "../frame_header.ts";

export const SESSION = Uint8Array.from({ length: 16 }, (_, i) => 0xf0 + i);
export const OPTIONS: ReceiverConfig = {
  heartbeatMs: 100,
  graceMs: 500,
  maxTransactionBytes: 1e6,
  committed: 0,
  software: "receiver",
};

/** Writes down what a receiver reports; acknowledges commits and the handover. */
export class Desk implements TransactionVisitor {
  readonly log: string[] = [];
  payloadBytes: number[] = [];
  receiver!: TxnReceiver;
  answers = true;

  hello(): void {
    this.log.push("hello");
  }
  begin(transaction: number, { full, based }: { full: boolean; based: boolean }): void {
    this.log.push(`begin ${transaction}${full ? " full" : ""}${based ? " based" : ""}`);
    this.payloadBytes = [];
  }
  payload(bytes: Uint8Array, at: number, end: number): void {
    this.payloadBytes.push(...bytes.subarray(at, end));
  }
  event(payload: Uint8Array): void {
    this.log.push(`event ${payload}`);
  }
  released(transaction: number): void {
    this.log.push(`released ${transaction}`);
  }
  input(transaction: number, payload: Uint8Array): void {
    this.log.push(`input for ${transaction}: ${payload}`);
  }
  commit(transaction: number): void {
    this.log.push(`commit ${transaction}: ${this.payloadBytes}`);
    if (this.answers) this.receiver.ack(transaction);
  }
  cancel(transaction: number): void {
    this.log.push(`cancel ${transaction}`);
  }
  handover(transaction: number): void {
    this.log.push(`handover ${transaction}`);
    if (this.answers) this.receiver.ack(transaction);
  }
  leave({ reason, text }: Leave): void {
    this.log.push(`leave ${reason} ${text}`.trim());
    if (this.answers) this.receiver.left();
  }
  digestQuery(low: number, high: number): void {
    this.log.push(`digests ${low} ${high}`);
  }
  diskQuery(payload: Uint8Array): void {
    this.log.push(`disk query ${payload}`);
  }
}

/** Both ends on one fake clock; what travels arrives `delayMs` later. */
export class Link {
  now = 0;
  readonly desk = new Desk();
  readonly sender: TxnSender;
  readonly receiver: TxnReceiver;
  readonly #flying: { at: number; to: "sender" | "receiver"; bytes: Uint8Array }[] = [];
  readonly #carries = { sender: new Carry(), receiver: new Carry() };
  readonly events: SenderEvent[] = [];
  up = true;

  constructor(readonly delayMs = 0, options: Partial<ReceiverConfig> = {}) {
    this.sender = new TxnSender(
      { session: SESSION, heartbeatMs: 100, graceMs: 500, software: "sender" },
      0,
    );
    this.receiver = new TxnReceiver({ ...OPTIONS, ...options }, this.desk, 0);
    this.desk.receiver = this.receiver;
    this.settle();
  }

  settle(): void {
    for (;;) {
      for (const bytes of this.sender.takeOutput()) this.#fly("receiver", bytes);
      for (const bytes of this.receiver.takeOutput()) this.#fly("sender", bytes);
      const due = this.#flying.findIndex(({ at }) => at <= this.now);
      if (due < 0) break;
      const { to, bytes } = this.#flying.splice(due, 1)[0];
      this.#carries[to].feed(bytes, 0, bytes.length, (b, start, end) => {
        return this[to].receive(b, start, end, this.now);
      });
      this.events.push(...this.sender.takeEvents());
    }
    this.events.push(...this.sender.takeEvents());
  }

  /** Lets time pass, a millisecond at a time. @returns the longest silence the receiver told of. */
  pass(ms: number): number {
    let silent = 0;
    for (let i = 0; i < ms; i++) {
      this.now++;
      this.sender.tick(this.now);
      silent = Math.max(silent, this.receiver.tick(this.now));
      this.settle();
    }
    return silent;
  }

  #fly(to: "sender" | "receiver", bytes: Uint8Array): void {
    if (this.up) this.#flying.push({ at: this.now + this.delayMs, to, bytes: bytes.slice() });
  }
}

export function frame(
  header: Partial<FrameHeader> & { command: number },
  payload: Uint8Array = new Uint8Array(0),
) {
  const whole = { flags: 0, sequence: 0, transaction: 0, lengthBytes: payload.length, ...header };
  return [encodeHeader(whole), payload];
}

export function feed(end: TxnReceiver | TxnSender, ...frames: Uint8Array[][]): void {
  for (const [header, payload] of frames) {
    const bytes = new Uint8Array(header.length + payload.length);
    bytes.set(header);
    bytes.set(payload, header.length);
    assert.equal(end.receive(bytes, 0, bytes.length, 0), bytes.length);
  }
}

export function wireFault(fault: WireFault, message: RegExp) {
  return (error: unknown) => {
    assert.ok(error instanceof WireError, `${error}`);
    assert.match(error.message, message);
    assert.equal(error.fault, fault);
    return true;
  };
}
