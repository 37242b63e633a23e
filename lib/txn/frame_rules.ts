/**
 * The rules of ft-transaction's frames, as data: who may send a frame, in which states of the two ends,
 * what its header and its length may be, and what it needs offered.
 *
 * The two ends check frames by this table (`frame_gate.ts`), the tests of every state and frame are made
 * of it, and so are the tables in docs/PROTOCOL.md.
 */
import type { FeatureName } from "./hello.ts";
import {
  BEGIN_FLAG,
  DIGEST_LAST,
  MAX_CONTROL_BYTES,
  MAX_DISK_QUERY_BYTES,
  MAX_EVENT_BYTES,
  MAX_INPUT_BYTES,
  MAX_LEAVE_BYTES,
  MAX_NACK_TEXT_BYTES,
  MAX_PACKED_BYTES,
  MAX_PAYLOAD_BYTES,
  MIN_HELLO_BYTES,
  type NackReason,
  TXN,
} from "./wire.ts";

export type FrameName = keyof typeof TXN;

/** The states of a sender; see `TxnSender`. */
export const SENDER_STATES = [
  "hello",
  "ready",
  "asking",
  "open",
  "handover",
  "leaving",
  "done",
] as const;
export type SenderState = typeof SENDER_STATES[number];

/** The states of a receiver; see `TxnReceiver`. */
export const RECEIVER_STATES = ["hello", "idle", "telling", "open", "handover", "over"] as const;
export type ReceiverState = typeof RECEIVER_STATES[number];

export type End = "sender" | "receiver";

/** What a frame's sequence is. */
export type SequenceRule =
  /** 0: the frame has no place in a transaction, or is the first. */
  | "zero"
  /** One more than that of the frame before it in its transaction. */
  | "counted";

/** What a frame's transaction is. */
export type TransactionRule =
  /** 0. */
  | "none"
  /** One more than the last that was committed. */
  | "next"
  | "open"
  /** One that has been acknowledged. */
  | "acknowledged"
  /** The last committed one, which has been acknowledged, and in this session. */
  | "last"
  /** The oldest that was committed and is not acknowledged; or the one that was handed over. */
  | "oldest"
  /** Any but 0. */
  | "some"
  /** What is refused; 0 for the connection. */
  | "refused";

/** The rules of one kind of frame. */
export interface FrameRule {
  /** The states in which it is sent, of the ends that send it. */
  readonly sentIn: { readonly [E in End]?: readonly StateOf<E>[] };
  /** The states in which it is taken, of the ends that take it. In any other state it is refused. */
  readonly takenIn: { readonly [E in End]?: readonly StateOf<E>[] };
  /** The values that its flags may have. */
  readonly flags: readonly number[];
  readonly sequence: SequenceRule;
  readonly transaction: TransactionRule;
  /** Bytes of its payload, at the least and at the most. */
  readonly bytes: readonly [number, number];
  /** What both ends must have offered. */
  readonly needs?: FeatureName;
  /** What both ends must have offered, or else its payload is empty. */
  readonly payloadNeeds?: FeatureName;
  /** It answers one of these, and is refused where none waits for an answer. */
  readonly answers?: readonly FrameName[];
  /** What a NACK says of a payload that is at fault; of the rest it says `protocol`. */
  readonly nacks?: readonly NackReason[];
}

/** The states of an end. */
export type StateOf<E extends End> = E extends "sender" ? SenderState : ReceiverState;

const EMPTY = [0, 0] as const;
/** A frame outside of transactions. */
const OUTSIDE = { flags: [0], sequence: "zero", transaction: "none" } as const;
/** A frame of the open transaction, behind its BEGIN. */
const INSIDE = {
  sentIn: { sender: ["open"] },
  takenIn: { receiver: ["open"] },
  flags: [0],
  sequence: "counted",
  transaction: "open",
} as const;

/** Every frame's rules. */
export const FRAME_RULES: Readonly<Record<FrameName, FrameRule>> = {
  HELLO: {
    ...OUTSIDE,
    sentIn: { sender: ["hello"], receiver: ["hello"] },
    takenIn: { sender: ["hello"], receiver: ["hello"] },
    bytes: [MIN_HELLO_BYTES, MAX_CONTROL_BYTES],
    nacks: ["version", "other-vm", "same-image", "storage"],
  },
  BEGIN: {
    sentIn: { sender: ["ready"] },
    takenIn: { receiver: ["idle"] },
    flags: [0, BEGIN_FLAG.FULL, BEGIN_FLAG.FULL | BEGIN_FLAG.BASED],
    sequence: "zero",
    transaction: "next",
    bytes: EMPTY,
  },
  CONTINUE: {
    ...INSIDE,
    bytes: [0, MAX_PAYLOAD_BYTES],
    nacks: ["stream", "too-large", "other-vm", "storage"],
  },
  COMMIT: { ...INSIDE, bytes: [12, 12], nacks: ["checksum", "stream", "storage", "not-loaded"] },
  CANCEL: { ...INSIDE, bytes: EMPTY },
  ACK: {
    sentIn: { receiver: ["idle", "telling", "open", "handover", "over"] },
    takenIn: { sender: ["ready", "asking", "open", "handover", "leaving"] },
    flags: [0],
    sequence: "zero",
    transaction: "oldest",
    bytes: EMPTY,
    answers: ["COMMIT", "HANDOVER"],
  },
  NACK: {
    sentIn: { receiver: RECEIVER_STATES },
    takenIn: { sender: ["hello", "ready", "asking", "open", "handover", "leaving"] },
    flags: [0],
    sequence: "zero",
    transaction: "refused",
    bytes: [2, 2 + MAX_NACK_TEXT_BYTES],
  },
  EVENT: { ...INSIDE, bytes: [3, MAX_EVENT_BYTES], needs: "events", nacks: ["too-large"] },
  RELEASED: {
    sentIn: { sender: ["ready", "asking", "open"] },
    takenIn: { receiver: ["idle", "telling", "open"] },
    flags: [0],
    sequence: "zero",
    transaction: "acknowledged",
    bytes: EMPTY,
    needs: "events",
  },
  HEARTBEAT: {
    ...OUTSIDE,
    sentIn: {
      sender: ["ready", "asking", "open", "handover"],
      receiver: ["idle", "telling", "open", "handover"],
    },
    takenIn: {
      sender: ["ready", "asking", "open", "handover", "leaving"],
      receiver: ["idle", "telling", "open"],
    },
    bytes: EMPTY,
  },
  HANDOVER: {
    sentIn: { sender: ["ready"] },
    takenIn: { receiver: ["idle"] },
    flags: [0],
    sequence: "zero",
    transaction: "last",
    bytes: EMPTY,
    nacks: ["storage"],
  },
  DIGEST_QUERY: {
    ...OUTSIDE,
    sentIn: { sender: ["ready"] },
    takenIn: { receiver: ["idle"] },
    bytes: [8, 8],
    needs: "digests",
  },
  DIGEST: {
    ...OUTSIDE,
    sentIn: { receiver: ["telling"] },
    takenIn: { sender: ["asking", "leaving"] },
    flags: [0, DIGEST_LAST],
    bytes: [0, MAX_CONTROL_BYTES],
    needs: "digests",
    answers: ["DIGEST_QUERY"],
  },
  PACKED: {
    ...OUTSIDE,
    sentIn: { sender: ["open"] },
    takenIn: { receiver: ["open"] },
    bytes: [8, MAX_PACKED_BYTES],
    needs: "packed",
  },
  LEAVE: {
    ...OUTSIDE,
    sentIn: { sender: ["ready", "asking"] },
    takenIn: { receiver: ["idle", "telling"] },
    bytes: [1, MAX_LEAVE_BYTES],
    payloadNeeds: "farewell",
  },
  LEFT: {
    ...OUTSIDE,
    sentIn: { receiver: ["over"] },
    takenIn: { sender: ["leaving"] },
    bytes: EMPTY,
    needs: "farewell",
    answers: ["LEAVE"],
  },
  DISK_QUERY: {
    ...OUTSIDE,
    sentIn: { sender: ["ready", "asking", "open"] },
    takenIn: { receiver: ["idle", "telling", "open"] },
    bytes: [30, MAX_DISK_QUERY_BYTES],
    needs: "diskDigests",
    nacks: ["storage"],
  },
  DISK_DIGEST: {
    ...OUTSIDE,
    sentIn: { receiver: ["idle", "telling", "open", "handover"] },
    takenIn: { sender: ["ready", "asking", "open", "handover", "leaving"] },
    flags: [0, DIGEST_LAST],
    bytes: [16, MAX_CONTROL_BYTES],
    needs: "diskDigests",
    answers: ["DISK_QUERY"],
  },
  INPUT: {
    flags: [0],
    sequence: "zero",
    transaction: "some",
    sentIn: { sender: ["ready", "asking", "open"] },
    takenIn: { receiver: ["idle", "telling", "open"] },
    bytes: [16, MAX_INPUT_BYTES],
    needs: "inputs",
  },
};

const NAMES: ReadonlyMap<number, FrameName> = new Map(
  (Object.keys(TXN) as FrameName[]).map((name) => [TXN[name], name]),
);

/** A command's name; undefined if there is no such command. */
export function frameName(command: number): FrameName | undefined {
  return NAMES.get(command);
}
