/** The answers to a control socket's client: done, refused, or what it has asked for. */
import { foreignText } from "../foreign_text.ts";
import { EXIT, exitCodeOf, KemariError, RelayedError, WireError } from "../errors.ts";
import { type SenderDurations, senderDurations } from "./sender_status.ts";
import {
  anyNumber,
  anyText,
  checked,
  isObject,
  oneOf,
  optional,
  record,
  type Shape,
} from "./shape.ts";
import { type AttachPlace, attachPlaceShape } from "./attach_request.ts";
import { type EarlyEndStatus, type EndStatus, statusShape } from "./end_status.ts";

/** The longest answer, in bytes: several times the status of a VM with a hundred taps. */
export const MAX_ANSWER_BYTES = 1 << 20;

/** The request was carried out. */
interface DoneAnswer {
  readonly ok: true;
}

/** The request was not, or cannot be, carried out. */
export interface Refusal {
  readonly error: string;
  /** What the reader can do about it. */
  readonly hint?: string;
  /** The exit code of such an error in that process. */
  readonly exitCode?: number;
}

export type ControlAnswer =
  | EndStatus
  | EarlyEndStatus
  | SenderDurations
  | (DoneAnswer & Partial<AttachPlace>)
  | Refusal;

/**
 * Texts in an answer are for people, and many come from others: a peer's messages, QEMU's names.
 */
export function encodeAnswer(answer: ControlAnswer): string {
  return JSON.stringify(answer, plain) + "\n";
}

/** Makes texts, and the names of fields, fit to be shown. */
function plain(_key: string, value: unknown): unknown {
  if (typeof value === "string") return foreignText(value);
  if (!isObject(value) || Object.keys(value).every((key) => key === foreignText(key))) return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [foreignText(key), each]));
}

/** The answer for an error. */
export function refusalOf(error: unknown): Refusal {
  const { message } = error as Error;
  const hint = error instanceof KemariError ? error.hint : undefined;
  return { error: message, hint, exitCode: exitCodeOf(error) };
}

export function refuseCommand(command: unknown): Refusal {
  return { error: `no such command: ${String(command)}` };
}

const done = record<DoneAnswer>({ ok: oneOf(true) });
export const refusalShape = record<Refusal>({
  error: anyText,
  hint: optional(anyText),
  exitCode: optional(anyNumber),
});

/**
 * @param line The answer to `status`.
 * @param from The control socket, for errors.
 * @returns The answer itself, fields of later versions included.
 * @throws {RelayedError} with that end's reason; {WireError} `bad-value`, saying what is no JSON,
 *   missing or of another type.
 */
export function decodeStatus(line: string, from: string): EndStatus | EarlyEndStatus {
  return decode(line, from, statusShape, "is no kemari status", "send, recv or protect");
}

/** The answer to `durations`; see {@link decodeStatus}. */
export function decodeDurations(line: string, from: string): SenderDurations {
  return decode(line, from, senderDurations, "is no kemari sender's", "send or protect");
}

/** The answer to `failover` or `protect`; see {@link decodeStatus}. */
export function decodeDone(line: string, from: string): DoneAnswer {
  return decode(line, from, done, "is not kemari's", "recv");
}

/** The answer to `attach` by way of `direct`; see {@link decodeStatus}. */
export function decodePlace(line: string, from: string): AttachPlace {
  const { host, port } = decode(line, from, attachPlaceShape, "is not kemari's", "recv");
  return { host, port };
}

function decode<T>(
  line: string,
  from: string,
  shape: Shape<T>,
  isNot: string,
  commands: string,
): T {
  const hint = `name the socket that was given to kemari ${commands} as --control`;
  let answer: unknown;
  try {
    answer = JSON.parse(line, plain);
  } catch {
    throw new WireError("control", 0, "bad-value", `${from}: the answer is not JSON`, { hint });
  }
  const what = `${from}: the answer ${isNot}`;
  if (!isObject(answer) || !Object.hasOwn(answer, "error")) {
    return checked(answer, shape, what, hint);
  }
  const { error, hint: theirs, exitCode } = checked(answer, refusalShape, what, hint);
  throw new RelayedError(exitCode ?? EXIT.connection, `${from}: ${error}`, {
    party: "control",
    hint: theirs,
  });
}
