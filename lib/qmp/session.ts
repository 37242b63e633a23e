/**
 * A QMP connection as a state machine: greeting, negotiation, commands and their answers, events.
 *
 * ```text
 * greeting ──► negotiating ──► ready
 *                  ▲──greeting───┘
 * ```
 *
 * A QEMU that is just starting may greet twice, and is then back in the negotiation. Its messages
 * come in order, so commands that are open then are refused by QEMU, and sent again.
 *
 * Bytes and commands in, bytes and notices out; no socket and no clock.
 *
 * @see QEMU docs/interop/qmp-spec.rst
 */
import { QemuError, StateError, WireError } from "../errors.ts";
import {
  encodeCommand,
  type JsonObject,
  MessageDecoder,
  type QmpCommand,
  type QmpMessage,
} from "./codec.ts";

/** QEMU's greeting. */
export interface QmpGreeting {
  /** `query-version`'s answer. */
  readonly version: unknown;
  /** The capabilities to negotiate, such as `oob`. */
  readonly capabilities: readonly string[];
}

/** An event from QEMU. */
export interface QmpEvent {
  readonly name: string;
  readonly data: JsonObject;
  /** Milliseconds since 1970, by QEMU's clock; absent if QEMU could not tell. */
  readonly timestampMs?: number;
}

/** What QEMU has sent. */
export type QmpNotice =
  | { readonly kind: "ready"; readonly greeting: QmpGreeting }
  | { readonly kind: "reply"; readonly id: number; readonly value: unknown }
  | { readonly kind: "failure"; readonly id: number; readonly error: QemuError }
  | { readonly kind: "event"; readonly event: QmpEvent };

/** The state machine of one connection. */
export class QmpSession {
  readonly #decoder: MessageDecoder;
  readonly #notices: QmpNotice[] = [];
  readonly #output: Uint8Array[] = [];
  /** The commands without an answer yet, by id. */
  readonly #open = new Map<number, QmpCommand>();
  /** Those among them that QEMU refuses because it has greeted again. */
  #refused = new Set<number>();
  /** Those among them that are sent when that negotiation is over. */
  #waiting: number[] = [];
  /** The last negotiation's own command. */
  #negotiation = 0;
  #nextId = 1;
  #state: "greeting" | "negotiating" | "ready" = "greeting";
  #wasReady = false;
  #greeting: QmpGreeting = { version: undefined, capabilities: [] };

  constructor(maxMessageBytes?: number) {
    this.#decoder = new MessageDecoder(maxMessageBytes);
  }

  get isReady(): boolean {
    return this.#state === "ready";
  }

  /**
   * Takes bytes from QEMU.
   *
   * @throws {WireError} If they are not QMP; the session must not be used afterwards.
   * @throws {QemuError} If QEMU refuses the negotiation.
   */
  receive(bytes: Uint8Array): void {
    this.#decoder.receive(bytes);
    for (;;) {
      const message = this.#decoder.take();
      if (message === undefined) return;
      this.#handle(message);
    }
  }

  /** @throws {WireError} `truncated` if the connection ended within a message. */
  end(): void {
    this.#decoder.end();
  }

  /**
   * Queues a command; its bytes come out of {@link takeOutput}.
   *
   * @returns The id that its answer will carry.
   * @throws {StateError} Before the session is ready.
   */
  command(command: QmpCommand): number {
    if (this.#state !== "ready" && !this.#wasReady) {
      throw new StateError(`QMP command ${command.execute} before the session is ready`);
    }
    const hasOutOfBand = this.#greeting.capabilities.includes("oob");
    const id = this.#number({ ...command, outOfBand: command.outOfBand === true && hasOutOfBand });
    if (this.#state === "ready") this.#say(id);
    else this.#waiting.push(id);
    return id;
  }

  /** The next bytes for QEMU, if there are any. The caller owns them. */
  takeOutput(): Uint8Array | undefined {
    return this.#output.shift();
  }

  /** The next thing that came in, if there is one. */
  take(): QmpNotice | undefined {
    return this.#notices.shift();
  }

  #number(command: QmpCommand): number {
    const id = this.#nextId++;
    this.#open.set(id, command);
    return id;
  }

  #say(id: number): void {
    this.#output.push(encodeCommand(this.#open.get(id)!, id));
  }

  #handle({ object, offset }: QmpMessage): void {
    // A QEMU that is just starting may emit events before it has greeted.
    if (typeof object.event === "string") {
      this.#notices.push({ kind: "event", event: decodeEvent(object.event, object) });
    } else if (this.#state === "greeting" || isObject(object.QMP)) {
      this.#greet(object, offset);
    } else if ("return" in object || "error" in object) {
      this.#answer(object, offset);
    } else {
      throw new WireError("qmp", offset, "bad-value", "neither an answer nor an event");
    }
  }

  #greet(object: JsonObject, offset: number): void {
    const qmp = object.QMP;
    if (!isObject(qmp)) {
      throw new WireError(
        "qmp",
        offset,
        "bad-magic",
        `the first message is no QMP greeting: ${JSON.stringify(object).slice(0, 200)}`,
        {
          hint: "is this socket QEMU's QMP, not a guest agent's?",
        },
      );
    }
    const offered = Array.isArray(qmp.capabilities) ? qmp.capabilities : [];
    this.#greeting = {
      version: qmp.version,
      capabilities: offered.filter((each) => typeof each === "string"),
    };
    // The negotiation sent after an earlier greeting, without an answer yet, serves for this one
    // too.
    if (this.#state === "negotiating") return;
    const enable = this.#greeting.capabilities.filter((each) => each === "oob");
    this.#refused = new Set(this.#open.keys());
    this.#state = "negotiating";
    this.#negotiation = this.#number({
      execute: "qmp_capabilities",
      ...(enable.length > 0 ? { arguments: { enable } } : {}),
    });
    this.#say(this.#negotiation);
  }

  #answer(object: JsonObject, offset: number): void {
    const error = isObject(object.error) ? object.error : {};
    const text = typeof error.desc === "string" ? error.desc : "no reason given";
    const id = object.id;
    if (id === undefined && "error" in object) {
      throw new WireError("qmp", offset, "refused", `QEMU could not read a command: ${text}`);
    }
    const command = typeof id === "number" ? this.#open.get(id) : undefined;
    if (typeof id !== "number" || command === undefined) {
      const shown = JSON.stringify(id)?.slice(0, 40) ?? "none";
      throw new WireError("qmp", offset, "bad-order", `an answer to no command (id ${shown})`);
    }
    if (this.#refused.delete(id)) {
      this.#waiting.push(id);
      return;
    }
    this.#open.delete(id);
    const failure = "error" in object
      ? new QemuError(command.execute, typeof error.class === "string" ? error.class : "?", text)
      : undefined;
    if (id === this.#negotiation) {
      if (failure !== undefined) throw failure;
      this.#state = "ready";
      this.#wasReady = true;
      for (const waiting of this.#waiting) this.#say(waiting);
      this.#waiting = [];
      this.#notices.push({ kind: "ready", greeting: this.#greeting });
    } else if (failure !== undefined) {
      this.#notices.push({ kind: "failure", id, error: failure });
    } else {
      this.#notices.push({ kind: "reply", id, value: object.return });
    }
  }
}

function decodeEvent(name: string, object: JsonObject): QmpEvent {
  const time = isObject(object.timestamp) ? object.timestamp : {};
  const { seconds, microseconds } = time;
  const isKnown = typeof seconds === "number" && typeof microseconds === "number" && seconds >= 0;
  return {
    name,
    data: isObject(object.data) ? object.data : {},
    ...(isKnown ? { timestampMs: seconds * 1000 + microseconds / 1000 } : {}),
  };
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
