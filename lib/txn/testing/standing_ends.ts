/** For tests: both ends in each of their states, and a frame of each kind that is right there. */
import type { FrameHeader } from "../frame_header.ts";
import {
  FRAME_RULES,
  type FrameName,
  type ReceiverState,
  type SenderState,
} from "../frame_rules.ts";
import { encodeHello, FEATURE, type FeatureName, PROTOCOL_VERSION } from "../hello.ts";
import { FramePacker } from "../packing.ts";
import { PayloadSum } from "../payload_sum.ts";
import { TxnReceiver } from "../receiver.ts";
import { TxnSender } from "../sender.ts";
import { HEADER_BYTES, TXN } from "../wire.ts";
import type { Standing } from "./frame_oracle.ts";
import { Desk, feed, frame, OPTIONS, SESSION } from "./session_pair.ts";

export const ALL_FEATURES = Object.keys(FEATURE) as FeatureName[];

/** The transaction that is committed, and acknowledged by a receiver, where an end stands. */
const LAST = 7;

/** An end, and where it stands. */
export interface StoodEnd {
  readonly standing: Standing;
  /** Gives it a frame's header, and its payload as far as that is there. */
  give(header: FrameHeader, payload?: Uint8Array): void;
  /** What it has made of what came; the same lines again where it made nothing of it. */
  readonly seen: readonly string[];
}

function helloOf(features: readonly FeatureName[], committed: number): Uint8Array {
  return encodeHello({
    ...OPTIONS,
    version: PROTOCOL_VERSION,
    features: features.reduce((bits, name) => bits | FEATURE[name], 0),
    session: SESSION,
    committed,
  });
}

/** A receiver that answers nothing by itself. @param offered By its sender. */
export function receiverIn(
  state: ReceiverState,
  offered: readonly FeatureName[] = ALL_FEATURES,
  takesInputs = true,
): StoodEnd {
  const desk = new Desk();
  desk.answers = false;
  const receiver = new TxnReceiver({ ...OPTIONS, committed: LAST - 1, takesInputs }, desk, 0);
  desk.receiver = receiver;
  const agreed = ALL_FEATURES.filter((name) =>
    name === "inputs" ? takesInputs : offered.includes(name)
  );
  const next = LAST + 1;
  if (state !== "hello") {
    feed(receiver, frame({ command: TXN.HELLO }, helloOf(offered, 0)));
    feed(receiver, frame({ command: TXN.BEGIN, transaction: LAST, flags: 1 }));
    const sums = new PayloadSum().encode();
    feed(receiver, frame({ command: TXN.COMMIT, transaction: LAST, sequence: 1 }, sums));
    receiver.ack(LAST);
  }
  if (state === "telling") feed(receiver, frame({ command: TXN.DIGEST_QUERY }, new Uint8Array(8)));
  if (state === "open") {
    feed(receiver, frame({ command: TXN.BEGIN, transaction: next }));
    feed(receiver, frame({ command: TXN.CONTINUE, transaction: next, sequence: 1 }));
  }
  if (state === "handover" || state === "over") {
    feed(receiver, frame({ command: TXN.HANDOVER, transaction: LAST }));
  }
  if (state === "over") receiver.ack(LAST);
  return {
    standing: {
      ...{ end: "receiver", state, agreed: state === "hello" ? [] : agreed },
      before: LAST - 1,
      transaction: state === "open" ? next : state === "hello" ? LAST - 1 : LAST,
      acknowledged: state === "hello" ? LAST - 1 : LAST,
      sequence: 2,
      waiting: [],
    },
    give: (header, payload) => giveTo(receiver, header, payload),
    get seen() {
      return [...desk.log, `${receiver.open} ${receiver.transaction} ${receiver.peer?.software}`];
    },
  };
}

/** A sender to which as much as possible is owed. @param offered By its receiver. */
export function senderIn(
  state: SenderState,
  offered: readonly FeatureName[] = ALL_FEATURES,
  owed = true,
): StoodEnd {
  const sender = new TxnSender({ ...OPTIONS, session: SESSION }, 0);
  if (state !== "hello") feed(sender, frame({ command: TXN.HELLO }, helloOf(offered, LAST)));
  const waiting: FrameName[] = [];
  const isAsking = state === "asking" || state === "leaving" && owed;
  if (state !== "hello" && state !== "handover" && owed) {
    sender.begin("checkpoint");
    sender.commit(0);
    waiting.push("COMMIT");
  }
  if (owed && sender.mayQueryDisk) {
    sender.queryDisk(new Uint8Array(30));
    waiting.push("DISK_QUERY");
  }
  if (isAsking && sender.answersDigests) {
    sender.queryDigests(1, 2);
    waiting.push("DIGEST_QUERY");
  }
  if (state === "open") sender.begin("checkpoint");
  if (state === "leaving" || state === "done") {
    sender.leave({ reason: "goes-on", text: "" });
    waiting.push("LEAVE");
  }
  if (state === "done") feed(sender, frame({ command: TXN.LEFT }));
  if (state === "handover") {
    sender.handover();
    waiting.push("HANDOVER");
  }
  const events: string[] = [];
  return {
    standing: {
      ...{ end: "sender", state, agreed: state === "hello" ? [] : offered, waiting },
      before: LAST,
      transaction: sender.transaction,
      acknowledged: LAST,
      sequence: 1,
    },
    give: (header, payload) => giveTo(sender, header, payload),
    get seen() {
      events.push(...sender.takeEvents().map((event) => JSON.stringify(event)));
      return [...events, `${sender.open} ${sender.ready} ${sender.inFlight.length}`];
    },
  };
}

function giveTo(end: TxnReceiver | TxnSender, header: FrameHeader, payload?: Uint8Array): void {
  const [head] = frame(header);
  const bytes = new Uint8Array(HEADER_BYTES + (payload?.length ?? 0));
  bytes.set(head);
  bytes.set(payload ?? [], HEADER_BYTES);
  end.receive(bytes, 0, bytes.length, 0);
}

/** A frame that is right in its numbers, if such a one may come to that end at all. */
export function rightFrame(
  name: FrameName,
  standing: Standing,
): { readonly header: FrameHeader; readonly payload: Uint8Array } {
  const { sequence, transaction } = FRAME_RULES[name];
  const payload = rightPayload(name, standing);
  const numbers = {
    none: 0,
    next: standing.transaction + 1,
    open: standing.transaction,
    acknowledged: standing.acknowledged,
    last: standing.transaction,
    oldest: standing.state === "handover" ? standing.transaction : standing.acknowledged + 1,
    some: standing.transaction + 1,
    refused: 0,
  };
  return {
    header: {
      command: TXN[name],
      flags: 0,
      sequence: sequence === "counted" ? standing.sequence : 0,
      transaction: numbers[transaction],
      lengthBytes: payload.length,
    },
    payload,
  };
}

let packed: Uint8Array | undefined;

/** An empty CONTINUE, as {@link receiverIn} awaits one in `open`. */
function packedContinue(): Uint8Array {
  const inner = { command: TXN.CONTINUE, transaction: LAST + 1, sequence: 2 };
  packed ??= new FramePacker(() => 0).pack(frame(inner).slice(0, 1))[0].subarray(HEADER_BYTES);
  return packed;
}

function rightPayload(name: FrameName, standing: Standing): Uint8Array {
  switch (name) {
    case "HELLO":
      return helloOf(ALL_FEATURES, standing.end === "sender" ? LAST : 0);
    case "COMMIT":
      return new PayloadSum().encode();
    case "LEAVE":
      return Uint8Array.of(0);
    case "PACKED":
      return standing.state === "open" ? packedContinue() : new Uint8Array(8);
    default:
      return new Uint8Array(FRAME_RULES[name].bytes[0]);
  }
}
