/**
 * The one error tree.
 *
 * ```text
 * KemariError                    exit
 * ├── UsageError                    2   the command line
 * ├── WireError                     3   bytes from a stream or a peer
 * ├── TransportError                4   a connection, file or process
 * ├── QemuError                     5   QEMU refused, or cannot do it
 * ├── RelayedError           (theirs)   another kemari process could not do what it was asked for
 * ├── StateError                   70   a bug of ours: an impossible order of calls
 * └── InterruptedError            130   SIGINT, SIGTERM or SIGHUP
 * ```
 *
 * A message says what could not be done and what was found; the hint says what to do.
 */
import { foreignText } from "./foreign_text.ts";

/** Exit codes of every command; main.ts alone exits with them. */
export const EXIT = {
  done: 0,
  usage: 2,
  bytes: 3,
  connection: 4,
  qemu: 5,
  bug: 70,
  interrupted: 130,
} as const;

/**
 * Which party an error is about. How it is handled depends on this, on the error's class and on its
 * fault; never on its text.
 */
export type Party =
  /** The user or program that gave the command. */
  | "user"
  /** The other end of the link: a sender's secondary, a receiver's sender. */
  | "peer"
  /** The QEMU that is protected: its monitor, or its migration stream. */
  | "qemu"
  /** The command that makes sure that the primary is dead. */
  | "fence"
  /** The QEMU that stands by beside the replica. */
  | "standby"
  /**
   * The process that is to take the VM over without a standby: `--exec`'s command, or a pipe's
   * reader.
   */
  | "successor"
  /** A disk's image, or its client. */
  | "disk"
  /** A NIC's tap. */
  | "net"
  /** The replica's storage. */
  | "replica"
  /** A control socket, or the process that answers there. */
  | "control"
  /** The store that says which side may run the VM. */
  | "arbiter"
  /** The system that this end runs on, or this end itself. */
  | "host";

/** The most characters of a message or a hint, which may quote a peer. */
const MAX_MESSAGE_CHARS = 4000;

/** Options every kemari error takes. */
export interface ErrorDetails {
  /** The party, if it is not the one that the error's class implies. */
  readonly party?: Party;
  /** One sentence: what the reader can do about it. */
  readonly hint?: string;
  readonly cause?: unknown;
}

/** The root: everything kemari itself throws. Message and hint can be shown as they are. */
export abstract class KemariError extends Error {
  abstract readonly exitCode: number;
  readonly hint?: string;
  readonly party: Party;

  constructor(message: string, details: ErrorDetails = {}) {
    super(
      foreignText(message, MAX_MESSAGE_CHARS),
      details.cause === undefined ? undefined : { cause: details.cause },
    );
    this.name = new.target.name;
    this.hint = details.hint && foreignText(details.hint, MAX_MESSAGE_CHARS);
    this.party = details.party ?? "host";
  }
}

/** The command line asks for something that does not exist or does not fit together. */
export class UsageError extends KemariError {
  override readonly exitCode = EXIT.usage;
  override readonly party = "user";
}

/** The protocol or format that the faulty bytes should have had. */
export type WireProtocol =
  | "migration"
  | "colo"
  | "vmdesc"
  | "transaction"
  | "qmp"
  | "nbd"
  | "packet"
  | "control"
  | "arbiter";

/** The party that sends each of them. */
const SPEAKERS: Readonly<Record<WireProtocol, Party>> = {
  migration: "qemu",
  colo: "qemu",
  vmdesc: "qemu",
  qmp: "qemu",
  transaction: "peer",
  nbd: "disk",
  packet: "net",
  control: "control",
  arbiter: "arbiter",
};

/** What is wrong with the bytes. Scripts may match on this; the meanings never change. */
export type WireFault =
  | "truncated"
  | "bad-magic"
  | "bad-version"
  | "bad-value"
  | "bad-length"
  | "bad-order"
  | "bad-checksum"
  | "too-large"
  | "unsupported"
  | "refused"
  | "busy"
  | "taken-over"
  | "silence"
  | "activating"
  | "stopping"
  | "other-vm"
  | "same-image"
  | "storage";

/** The bytes of a stream or of a peer are at fault. */
export class WireError extends KemariError {
  override readonly exitCode = EXIT.bytes;

  /**
   * @param protocol The protocol of the bytes.
   * @param offset Offset of the first faulty byte from the start of that stream or connection.
   * @param fault The kind of fault.
   * @param message What was found and what was expected.
   */
  constructor(
    readonly protocol: WireProtocol,
    readonly offset: number,
    readonly fault: WireFault,
    message: string,
    details: ErrorDetails = {},
  ) {
    super(`${protocol} stream, offset ${offset}: ${message} (${fault})`, {
      ...details,
      party: details.party ?? SPEAKERS[protocol],
    });
  }
}

/** The phase in which a transport failed. */
export type TransportPhase =
  | "resolve"
  | "connect"
  | "listen"
  | "read"
  | "write"
  | "heartbeat"
  | "spawn"
  | "load"
  | "handshake"
  | "close";

/** A connection, file or child process failed. */
export class TransportError extends KemariError {
  override readonly exitCode = EXIT.connection;

  /** @param endpoint The address or path as the user wrote it. */
  constructor(
    readonly endpoint: string,
    readonly phase: TransportPhase,
    message: string,
    details: ErrorDetails = {},
  ) {
    super(`${endpoint}: ${message}`, details);
  }
}

/** QEMU refused a command, or lacks an ability. */
export class QemuError extends KemariError {
  override readonly exitCode = EXIT.qemu;

  /**
   * @param command The QMP command, or what was asked of QEMU.
   * @param errorClass QMP's error class, such as `GenericError`.
   * @param reason What was found; the message begins with whose answer that is.
   */
  constructor(
    readonly command: string,
    readonly errorClass: string,
    readonly reason: string,
    details: ErrorDetails = {},
  ) {
    super(`QEMU, ${command}: ${reason}`, { ...details, party: details.party ?? "qemu" });
  }
}

/** Another kemari process could not do what it was asked to. */
export class RelayedError extends KemariError {
  override readonly exitCode: number;

  /**
   * @param exitCode The exit code of such an error there; any other number counts as a lost
   * connection.
   */
  constructor(exitCode: number, message: string, details: ErrorDetails = {}) {
    super(message, details);
    const codes: readonly number[] = Object.values(EXIT);
    this.exitCode = exitCode !== EXIT.done && codes.includes(exitCode) ? exitCode : EXIT.connection;
  }
}

/** An impossible order of calls: a bug in kemari. */
export class StateError extends KemariError {
  override readonly exitCode = EXIT.bug;
}

/** The user or the system asked the process to end. */
export class InterruptedError extends KemariError {
  override readonly exitCode = EXIT.interrupted;
}

/** The exit code that an error of any kind stands for. */
export function exitCodeOf(error: unknown): number {
  return error instanceof KemariError ? error.exitCode : EXIT.bug;
}
