/** Reads a migration file of any size for `kemari inspect`, piece by piece. */
import { Carry } from "../bytes/carry.ts";
import { KemariError, StateError, TransportError, UsageError, WireError } from "../errors.ts";
import { type FindingSink, StreamInspector } from "../qemu/stream_inspector.ts";
import { StreamParser } from "../qemu/stream_parser.ts";
import { adopt, kindOf, readSome } from "./system/channel.ts";
import { formatBytes } from "../units.ts";
import { cString, errno, errnoText, libc } from "./system/libc.ts";
import { O_CLOEXEC, O_NONBLOCK, O_RDONLY, POLLIN } from "./system/linux.ts";
import { delay } from "./system/delay.ts";

const READ_BYTES = 1 << 20;
/** How long the parser runs before signals get their turn, in milliseconds. */
const TURN_MS = 50;
/** How long a sleep may keep a signal waiting, in milliseconds. */
const POLL_MS = 100;

/** The line that tells a person how far things are. */
interface ProgressLine {
  readonly isShown: boolean;
  set(text: string): void;
}

/** An open input. The caller of {@link openStreamFile} disposes of it. */
interface StreamFile extends Disposable {
  readonly name: string;
  /** The length; known for files only. */
  readonly lengthBytes?: number;
  readonly fd: number;
  /** Whether a read may find nothing yet. */
  readonly waits: boolean;
}

/** The outcome of an inspection. */
export interface Inspection {
  /** Bytes read. */
  readonly bytes: number;
  readonly streams: number;
  readonly checkpoints: number;
  /** Why the inspection ended early; undefined if it did not. */
  readonly failure?: KemariError;
}

/**
 * Opens a migration file: a path, or `-` for stdin. Pipes and process substitution work too.
 *
 * @throws {TransportError} if it cannot be opened; {UsageError} if it is a terminal.
 */
export async function openStreamFile(path: string): Promise<StreamFile> {
  if (path === "-") {
    if (Deno.stdin.isTerminal()) {
      throw new UsageError("stdin is a terminal, which sends no migration stream", {
        hint: "kemari inspect FILE, or … | kemari inspect -",
      });
    }
    const waits = kindOf(0) !== "file";
    const { fd, release } = adopt(0, "read");
    return { name: "stdin", fd, waits, [Symbol.dispose]: release };
  }
  let info: Deno.FileInfo;
  try {
    info = await Deno.stat(path);
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) {
      throw new TransportError(path, "read", "there is no such file", {
        hint: 'name a file that holds a migration stream, or "-" for stdin',
        cause,
      });
    }
    throw new TransportError(path, "read", (cause as Error).message, { cause });
  }
  if (info.isDirectory) {
    throw new TransportError(path, "read", "it is a folder", { hint: "name a file inside it" });
  }
  const fd = libc().open(cString(path), O_RDONLY | O_NONBLOCK | O_CLOEXEC, 0);
  if (fd < 0) throw new TransportError(path, "read", `cannot be opened: ${errnoText(errno())}`);
  return {
    name: path,
    fd,
    waits: !info.isFile,
    ...(info.isFile ? { lengthBytes: info.size } : {}),
    [Symbol.dispose]: () => void libc().close(fd),
  };
}

/**
 * Parses `file` to its end, or to its first fault.
 *
 * @returns The outcome, also of a failure: the sink then has everything before the failure.
 */
export async function inspectStreamFile(
  file: StreamFile,
  sink: FindingSink,
  progress: ProgressLine,
  signal: AbortSignal,
): Promise<Inspection> {
  const inspector: StreamInspector = new StreamInspector(sink, () => parser);
  const parser: StreamParser = new StreamParser(inspector, { isRecording: true });
  const carry = new Carry();
  const take = (bytes: Uint8Array, start: number, end: number) => parser.parse(bytes, start, end);
  let bytes = 0;
  let failure: KemariError | undefined;
  try {
    for await (const [buffer, count] of pieces(file, signal)) {
      bytes += count;
      carry.feed(buffer, 0, count, take);
      if (progress.isShown) progress.set(progressText(bytes, file.lengthBytes));
    }
    if (bytes === 0) throw emptyFile(file.name);
    parser.finish(carry.pendingBytes);
  } catch (error) {
    if (!(error instanceof KemariError)) throw error;
    failure = error;
  }
  inspector.end(understoodUpTo(failure, parser.streamOffset));
  const { streams, checkpoints } = inspector;
  return { bytes, streams, checkpoints, ...(failure === undefined ? {} : { failure }) };
}

/** The file's bytes, piece by piece; the buffer is reused for the next piece. */
async function* pieces(
  file: StreamFile,
  signal: AbortSignal,
): AsyncGenerator<readonly [Uint8Array, number]> {
  const buffer = new Uint8Array(READ_BYTES);
  let turnEndsAt = performance.now() + TURN_MS;
  for (;;) {
    if (file.waits) await waitReadable(file.fd, signal);
    if (performance.now() >= turnEndsAt) {
      await delay(0);
      turnEndsAt = performance.now() + TURN_MS;
    }
    signal.throwIfAborted();
    const count = readSome(file.fd, buffer, file.name);
    if (count === 0) return;
    if (count !== undefined) yield [buffer, count];
  }
}

/** Sleeps, not on the runtime's thread, until there are bytes to read or the end. */
async function waitReadable(fd: number, signal: AbortSignal): Promise<void> {
  const pollfd = new Uint8Array(8);
  const view = new DataView(pollfd.buffer);
  view.setInt32(0, fd, true);
  view.setInt16(4, POLLIN, true);
  do {
    signal.throwIfAborted();
  } while (await libc().pollLater(pollfd, 1n, POLL_MS) === 0);
}

function progressText(bytes: number, lengthBytes: number | undefined): string {
  if (!lengthBytes) return `${formatBytes(bytes)} read`;
  const percent = Math.min(100, Math.floor(100 * bytes / lengthBytes));
  return `${formatBytes(bytes)} of ${formatBytes(lengthBytes)} (${percent} %)`;
}

function emptyFile(name: string): WireError {
  return new WireError("migration", 0, "truncated", `${name} is empty`, {
    hint: "the migration that should have filled it failed, or has not begun",
  });
}

/** A fault's offset, if it counts this file's bytes; else the parser's position. */
function understoodUpTo(failure: KemariError | undefined, parsed: number): number {
  if (failure instanceof StateError) return parsed;
  return failure instanceof WireError ? Math.max(parsed, failure.offset) : parsed;
}
