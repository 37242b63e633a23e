/**
 * What is said over ssh before a session: one JSON object a line.
 *
 * `ssh HOST kemari attach PATH` connects a sender, the near end, with a running `kemari recv`. The
 * far end speaks first, so that a key is shown to nobody but a kemari; then question and answer
 * alternate, and no end says anything out of its turn.
 *
 * ```text
 * far    {"kemari":"attach","version":1,"software":"kemari 0.1.0"}
 * near   {"way":"direct","identity":"session-…","key":"…"}    connect to recv, with this key
 *        {"way":"over-ssh"}                                   go on here
 * far    {"ok":true,"host":"0.0.0.0","port":4000}             direct: where recv listens
 *        {"ok":true}                                          over-ssh: a session begins behind this line
 *        {"error":"…","hint":"…","exitCode":4}                it is not to be
 * ```
 */
import { foreignText } from "../foreign_text.ts";
import { TransportError } from "../errors.ts";
import { type Refusal, refusalShape } from "./answer.ts";
import {
  type AttachPlace,
  attachPlaceShape,
  type AttachRequest,
  attachRequestShape,
} from "./attach_request.ts";
import { anyNumber, anyText, Mismatch, oneOf, record, type Shape } from "./shape.ts";

/** Of these lines. A later version says another number, and may mean something else by the rest. */
export const ATTACH_VERSION = 1;

/** The longest line, in bytes, its line break not counted. */
export const MAX_ATTACH_LINE_BYTES = 4096;

/** Of what was said instead, as much as is shown. */
const MAX_SAID_CHARS = 200;
const LINE_BREAK = 0x0a;
const SAME_KEMARI = "run the same kemari on both hosts";

interface Greeting {
  readonly kemari: "attach";
  readonly version: number;
  readonly software: string;
}

const attachedShape = record<{ readonly ok: true }>({ ok: oneOf(true) });
const greetingShape = record<Greeting>({
  kemari: oneOf("attach"),
  version: anyNumber,
  software: anyText,
});

/** The far end's first line. */
export function encodeGreeting(software: string): string {
  return line({ kemari: "attach", version: ATTACH_VERSION, software } satisfies Greeting);
}

export function encodeAttachRequest(request: AttachRequest): string {
  return line(request);
}

/** The far end's answer. */
export function encodeAttached(answer: AttachPlace | Refusal | undefined): string {
  if (answer === undefined) return line({ ok: true });
  if ("error" in answer) return line(fitting(answer));
  return line({ ok: true, host: answer.host, port: answer.port });
}

function line(value: object): string {
  return JSON.stringify(value) + "\n";
}

/** A refusal that has room in a line, with whatever has to be written as an escape. */
function fitting({ error, hint, exitCode }: Refusal): Refusal {
  const most = MAX_ATTACH_LINE_BYTES / 16;
  return {
    error: foreignText(error, most),
    ...(hint === undefined ? {} : { hint: foreignText(hint, most) }),
    exitCode,
  };
}

/** Takes the near end's one line out of pieces. */
export class AttachListener {
  readonly #line = new OneLine();

  /**
   * @param bytes They are copied.
   * @returns The request, once it is whole.
   * @throws {TransportError} There is none such, or more than it: this end is of no use any more.
   */
  receive(bytes: Uint8Array): AttachRequest | undefined {
    const taken = this.#line.receive(bytes);
    if (taken === undefined) return undefined;
    const fail = (what: string): never => {
      throw new TransportError("ssh", "read", `the near end's request: ${what}`, { party: "peer" });
    };
    if (taken.rest > 0) fail("more than one line");
    const value = parsed(taken.text);
    if (value === undefined) return fail("it is not JSON");
    return checkedOr(attachRequestShape, value, fail);
  }
}

/** What there is for a near end to do. */
export type AttachStep =
  /** Says this, which may hold a secret. */
  | { readonly do: "say"; readonly line: string }
  /** The session can begin: at that place, or, without one, behind the bytes that were taken. */
  | { readonly do: "begin"; readonly place: AttachPlace | undefined };

/**
 * The near end: waits for a greeting, asks, waits for the answer.
 *
 * ```text
 * greeting ──a kemari greets──► asked ──ok──► over
 *     └──anything else──► throws ◄──┘ a refusal, or anything else
 * ```
 */
export class AttachAsker {
  readonly #name: string;
  readonly #request: AttachRequest;
  #line = new OneLine();
  #state: "greeting" | "asked" | "over" = "greeting";

  /** @param name The target, for errors. */
  constructor(name: string, request: AttachRequest) {
    this.#name = name;
    this.#request = request;
  }

  /** Whether a kemari has greeted: what comes from then on is its own. */
  get isGreeted(): boolean {
    return this.#state !== "greeting";
  }

  /** What was said that is no whole line yet, as it can be shown. */
  get unfinished(): string {
    return foreignText(this.#line.begun, MAX_SAID_CHARS);
  }

  /**
   * @param bytes They are copied.
   * @returns What is to be done now, if anything.
   * @throws {TransportError} Somebody else speaks there, or the receiver refuses.
   */
  receive(bytes: Uint8Array): AttachStep | undefined {
    if (this.#state === "over") throw new TypeError("nothing is read here any more");
    let taken: TakenLine | undefined;
    try {
      taken = this.#line.receive(bytes);
    } catch (error) {
      if (!(error instanceof TransportError) || this.isGreeted) throw error;
      throw this.#strange(this.unfinished);
    }
    if (taken === undefined) return undefined;
    this.#line = new OneLine();
    if (this.#state === "greeting") this.#greeted(taken);
    else return this.#answered(taken);
    this.#state = "asked";
    return { do: "say", line: encodeAttachRequest(this.#request) };
  }

  #greeted({ text, rest }: TakenLine): void {
    const { version, software } = checkedOr(greetingShape, parsed(text) ?? {}, () => {
      throw this.#strange(foreignText(text, MAX_SAID_CHARS));
    });
    if (version !== ATTACH_VERSION) {
      throw this.#fault(
        `${foreignText(software, MAX_SAID_CHARS)} there attaches senders in another way ` +
          `(version ${version}, and here it is ${ATTACH_VERSION})`,
        SAME_KEMARI,
      );
    }
    if (rest > 0) throw this.#fault("kemari there says more than it was asked", SAME_KEMARI);
  }

  #answered({ text, rest }: TakenLine): AttachStep {
    const value = parsed(text);
    const fail = (what: string): never => {
      throw this.#fault(`kemari there does not answer as it should: ${what}`, SAME_KEMARI);
    };
    if (value === undefined) return fail("it is not JSON");
    if (Object.hasOwn(value, "error")) {
      const { error, hint } = checkedOr(refusalShape, value, fail);
      throw this.#fault(`refused there: ${error}`, hint);
    }
    if (rest > 0) fail("more than one line");
    const place = this.#request.way === "direct"
      ? checkedOr(attachPlaceShape, value, fail)
      : undefined;
    checkedOr(attachedShape, value, fail);
    this.#state = "over";
    return { do: "begin", place: place && { host: place.host, port: place.port } };
  }

  /** Something else than kemari has spoken. */
  #strange(said: string): TransportError {
    return this.#fault(
      `"${said}" was said there before kemari spoke`,
      "if a login shell says that: let its .bashrc, .profile and /etc/profile.d print in " +
        "interactive shells only",
    );
  }

  #fault(message: string, hint?: string): TransportError {
    return new TransportError(this.#name, "read", message, { party: "peer", hint });
  }
}

interface TakenLine {
  readonly text: string;
  /** Bytes behind it that have come with it. */
  readonly rest: number;
}

/** Takes one line out of pieces, of a bounded length. */
class OneLine {
  #begun = new Uint8Array(0);

  get begun(): Uint8Array {
    return this.#begun;
  }

  receive(bytes: Uint8Array): TakenLine | undefined {
    const end = bytes.indexOf(LINE_BREAK);
    const own = end < 0 ? bytes : bytes.subarray(0, end);
    const room = MAX_ATTACH_LINE_BYTES - this.#begun.length;
    const joined = new Uint8Array(this.#begun.length + Math.min(own.length, room));
    joined.set(this.#begun);
    joined.set(own.subarray(0, room), this.#begun.length);
    this.#begun = joined;
    if (own.length > room) {
      throw new TransportError("ssh", "read", `no line break in ${MAX_ATTACH_LINE_BYTES} bytes`, {
        party: "peer",
      });
    }
    if (end < 0) return undefined;
    return { text: new TextDecoder().decode(joined), rest: bytes.length - end - 1 };
  }
}

function parsed(text: string): object | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}

/** @param fail Is given what is wrong, and throws. */
function checkedOr<T>(shape: Shape<T>, value: object, fail: (what: string) => never): T {
  try {
    return shape(value, "");
  } catch (error) {
    if (error instanceof Mismatch) return fail(error.message);
    throw error;
  }
}
