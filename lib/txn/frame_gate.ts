/** What may be sent and taken in which state of an end, by the table in `frame_rules.ts`. */
import type { FrameHeader } from "./frame_header.ts";
import {
  type End,
  FRAME_RULES,
  type FrameName,
  frameName,
  RECEIVER_STATES,
  SENDER_STATES,
  type StateOf,
} from "./frame_rules.ts";
import { FEATURE, featureWord } from "./hello.ts";
import { refuse } from "./wire_fault.ts";

const COMMANDS = Array.from({ length: 256 }, (_, command) => frameName(command));

/** For each state of an end, and each command: whether such a frame is sent, or taken, in it. */
type Places = Readonly<Record<string, readonly boolean[]>>;

function placesOf<E extends End>(
  end: E,
  states: readonly StateOf<E>[],
  way: "sentIn" | "takenIn",
): Places {
  const isIn = (state: StateOf<E>, name: FrameName | undefined) => {
    const where: readonly string[] = name && FRAME_RULES[name][way][end] || [];
    return where.includes(state);
  };
  return Object.fromEntries(
    states.map((state) => [state, COMMANDS.map((name) => isIn(state, name))]),
  );
}

const SENT: Readonly<Record<End, Places>> = {
  sender: placesOf("sender", SENDER_STATES, "sentIn"),
  receiver: placesOf("receiver", RECEIVER_STATES, "sentIn"),
};
const TAKEN: Readonly<Record<End, Places>> = {
  sender: placesOf("sender", SENDER_STATES, "takenIn"),
  receiver: placesOf("receiver", RECEIVER_STATES, "takenIn"),
};

/** For each command the bits of the features that it, or its payload, needs. */
const NEEDS = COMMANDS.map((name) => bitsOf(name && FRAME_RULES[name].needs));
const PAYLOAD_NEEDS = COMMANDS.map((name) => bitsOf(name && FRAME_RULES[name].payloadNeeds));

function bitsOf(feature: keyof typeof FEATURE | undefined): number {
  return feature === undefined ? 0 : FEATURE[feature];
}

/** Whether an end that is in this state sends such a frame. */
export function maySend<E extends End>(end: E, state: StateOf<E>, command: number): boolean {
  return SENT[end][state][command];
}

/** Whether an end that is in this state takes such a frame. */
export function mayTake<E extends End>(end: E, state: StateOf<E>, command: number): boolean {
  return TAKEN[end][state][command];
}

/** Whether both ends have offered what such a frame needs. @param agreed See `agreedFeatures`. */
export function isAgreed(command: number, agreed: number): boolean {
  return (NEEDS[command] & ~agreed) === 0;
}

/**
 * Holds a frame's header against the state of the end that it comes to, and against what both ends have
 * offered.
 *
 * @param agreed What both have offered, see `agreedFeatures`.
 * @param offset Of the header in the connection, for errors.
 * @throws {WireError} `bad-order`, or `bad-length` for a payload that was not agreed upon.
 */
export function checkPlace<E extends End>(
  end: E,
  state: StateOf<E>,
  header: FrameHeader,
  agreed: number,
  offset: number,
): void {
  const { command } = header;
  if (!TAKEN[end][state][command]) {
    refuse(offset, "bad-order", whyNotHere(end, state, frameName(command)!));
  }
  if ((NEEDS[command] & ~agreed) !== 0) {
    const name = frameName(command)!;
    const feature = featureWord(FRAME_RULES[name].needs!);
    refuse(offset, "bad-order", `${name}, though ${feature} was not offered`);
  }
  if (PAYLOAD_NEEDS[command] !== 0) checkPayload(header, agreed, offset);
}

function checkPayload({ command, lengthBytes }: FrameHeader, agreed: number, offset: number): void {
  const name = frameName(command)!;
  const { bytes: [least], payloadNeeds } = FRAME_RULES[name];
  const isAgreed = (PAYLOAD_NEEDS[command] & agreed) !== 0;
  if (isAgreed ? lengthBytes >= least : lengthBytes === 0) return;
  const whether = isAgreed ? "was" : "was not";
  const feature = featureWord(payloadNeeds!);
  const what = `${name} of ${lengthBytes} bytes, where ${feature} ${whether} offered`;
  refuse(offset + 16, "bad-length", what);
}

function whyNotHere(end: End, state: string, name: FrameName): string {
  const places = FRAME_RULES[name].takenIn[end];
  if (places === undefined) {
    return `${name}, which no ${end === "sender" ? "receiver" : "sender"} sends`;
  }
  if (state === "hello") return `${name} before HELLO`;
  return `${name} while ${state}, where its place is in ${places.join(", ")}`;
}

const TRANSACTIONS = COMMANDS.map((name) => name && FRAME_RULES[name].transaction);

/**
 * Holds the numbers in a header against where a receiver stands.
 *
 * @param transaction The one that is open, or was committed last.
 * @param acknowledged The last that was acknowledged.
 * @param sequence Of the next frame in the open transaction.
 * @param offset Of the header in the connection, for errors.
 * @throws {WireError} `bad-order`
 */
export function checkNumbers(
  header: FrameHeader,
  transaction: number,
  acknowledged: number,
  sequence: number,
  offset: number,
): void {
  const found = header.transaction;
  const fail = (what: string) => {
    const name = frameName(header.command);
    refuse(offset + 8, "bad-order", `${name} of transaction ${found}, ${what}`);
  };
  switch (TRANSACTIONS[header.command]) {
    case "open":
      if (found !== transaction) fail(`awaited was ${transaction}`);
      if (header.sequence !== sequence) {
        const name = frameName(header.command);
        const what = `${name} is frame ${header.sequence} of transaction ${found}`;
        refuse(offset + 4, "bad-order", `${what}, awaited was frame ${sequence}`);
      }
      return;
    case "next":
      if (found !== transaction + 1) fail(`awaited was ${transaction + 1}`);
      return;
    case "acknowledged":
      if (found > acknowledged) fail(`acknowledged is ${acknowledged}`);
      return;
    case "last":
      if (found !== transaction) fail(`the last is ${transaction}`);
      if (found !== acknowledged) fail(`acknowledged is ${acknowledged}`);
  }
}
