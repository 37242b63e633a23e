import type { Leave } from "./leave.ts";
import type { Hello } from "./hello.ts";

/** How a transaction's payload is to be read. */
export interface TransactionKind {
  /** A whole migration stream, rather than a COLO checkpoint. */
  readonly full: boolean;
  /** With `full`: pages that go unmentioned keep the replica's content. */
  readonly based: boolean;
}

/** Takes what the sender does, in order. Bytes are valid during the call only. */
export interface TransactionVisitor {
  hello(hello: Hello): void;
  begin(transaction: number, kind: TransactionKind): void;
  /** The next piece of the open transaction's payload. */
  payload(bytes: Uint8Array, at: number, end: number): void;
  /** Held output of the VM that belongs to the open transaction. `payload` is the visitor's to keep. */
  event(payload: Uint8Array, offset: number): void;
  /** The sender let go what it held for this transaction and all before it. */
  released(transaction: number): void;
  /**
   * The world sent this to the guest, and this transaction's state will have it. `payload` is valid
   * during the call only.
   */
  input(transaction: number, payload: Uint8Array, offset: number): void;
  /** The payload is complete and its checksum right. Answer with ack() or nack(). */
  commit(transaction: number): void;
  cancel(transaction: number): void;
  /** The VM is ours from here on. Answer with ack(). */
  handover(transaction: number): void;
  /** The sender ends the session on purpose. Answer with left(). */
  leave(leave: Leave): void;
  digestQuery(seedLow: number, seedHigh: number): void;
  /** To be answered with diskDigests(), in order. `payload` is valid during the call only. */
  diskQuery(payload: Uint8Array, offset: number): void;
}
