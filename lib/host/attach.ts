import { decodeDone, MAX_ANSWER_BYTES, refusalOf } from "../control/answer.ts";
import {
  AttachListener,
  encodeAttached,
  encodeGreeting,
  MAX_ATTACH_LINE_BYTES,
} from "../control/attach_lines.ts";
import type { AttachPlace, AttachRequest } from "../control/attach_request.ts";
import { LineDecoder } from "../control/line_decoder.ts";
import { encodeRequest } from "../control/request.ts";
import { EXIT, exitCodeOf, TransportError } from "../errors.ts";
import { startReceiver } from "./start_receiver.ts";
import { askAttach } from "./system/ask_control.ts";
import { adopt, OutputQueue, readSome } from "./system/channel.ts";
import { parseControlPath } from "./system/control_path.ts";
import { sendWithDescriptors } from "./system/descriptor_passing.ts";
import { libc } from "./system/libc.ts";
import { Reactor } from "./system/reactor.ts";
import { connectSocket } from "./system/socket.ts";
import { SOFTWARE } from "./system/software.ts";

/** How long a sender may take to say what it wants, in milliseconds. */
const REQUEST_MS = 30_000;
/** How long a control socket may take to let us connect. */
const CONNECT_MS = 5000;

/**
 * `kemari attach`: what a sender's ssh runs beside a `kemari recv`. It has the recv take the sender in.
 *
 * A session over ssh is not passed through this process: the recv is handed our stdin and stdout, and
 * what is left here is to wait for its end, since ssh's server waits for ours.
 *
 * @param socket The recv's control socket.
 * @param startRecv Arguments for a recv that is started if none answers there.
 * @returns The exit code. What is wrong has been said to the sender by then.
 * @throws {TransportError} There is no sender to say it to; {UsageError} no socket has such a path.
 */
export async function attach(
  socket: string,
  startRecv: string | undefined,
  signal: AbortSignal,
): Promise<number> {
  const path = parseControlPath(socket);
  const reactor = new Reactor();
  const stdio = { input: adopt(0, "read"), output: adopt(1, "write") };
  const output = new OutputQueue(stdio.output.fd, "ssh", "peer");
  const say = (line: string) => {
    output.push([new TextEncoder().encode(line)]);
    // An empty pipe takes a line whole.
    output.flush();
  };
  try {
    say(encodeGreeting(SOFTWARE));
    const request = await hear(stdio.input.fd, reactor, signal);
    try {
      if (startRecv !== undefined) await startReceiver(path, startRecv, reactor, signal);
      if (request.way === "over-ssh") {
        await passOn(path, [stdio.input.fd, stdio.output.fd], reactor, signal);
      } else say(encodeAttached(await place(path, request, reactor, signal)));
      return EXIT.done;
    } catch (error) {
      signal.throwIfAborted();
      say(encodeAttached(refusalOf(error)));
      return exitCodeOf(error);
    }
  } finally {
    stdio.input.release();
    stdio.output.release();
    reactor.close();
  }
}

/** Reads the sender's one line. */
async function hear(fd: number, reactor: Reactor, signal: AbortSignal): Promise<AttachRequest> {
  const listener = new AttachListener();
  const buffer = new Uint8Array(MAX_ATTACH_LINE_BYTES);
  const heard = { request: undefined as AttachRequest | undefined };
  const fail = (what: string) => {
    throw new TransportError("ssh", "read", what, {
      party: "peer",
      hint: "kemari protect and send start this command themselves: see kemari attach --help",
    });
  };
  const watch = reactor.watch(fd, {
    readable: () => {
      const count = readSome(fd, buffer, "ssh", "peer");
      if (count === 0) fail("the sender has gone before it said anything");
      heard.request = listener.receive(buffer.subarray(0, count));
    },
  });
  watch.want(true, false);
  const cancel = reactor.after(REQUEST_MS, () => fail(`no sender in ${REQUEST_MS / 1000} s`));
  try {
    await reactor.run(() => heard.request !== undefined, signal);
    return heard.request!;
  } finally {
    cancel();
    watch.stop();
    buffer.fill(0);
  }
}

async function place(
  path: string,
  request: Extract<AttachRequest, { way: "direct" }>,
  reactor: Reactor,
  signal: AbortSignal,
): Promise<AttachPlace> {
  return await reactor.during(askAttach(path, request, signal), signal);
}

/**
 * Hands our stdin and stdout to the receiver, which tells the sender so itself.
 *
 * @returns When the session has ended.
 * @throws {KemariError} There is to be no session: the sender was not told.
 */
async function passOn(
  path: string,
  fds: readonly number[],
  reactor: Reactor,
  signal: AbortSignal,
): Promise<void> {
  const address = { kind: "unix", path, text: path } as const;
  const control = await connectSocket(address, reactor, CONNECT_MS, signal, "control");
  const lines = new LineDecoder(MAX_ANSWER_BYTES, path);
  const buffer = new Uint8Array(4096);
  let isOver = false;
  const watch = reactor.watch(control, {
    readable: () => {
      const count = readSome(control, buffer, path, "control");
      if (count === undefined) return;
      for (const line of lines.receive(buffer.subarray(0, count))) decodeDone(line, path);
      // One answer, or the receiver's end: the sender notices that by itself.
      isOver = true;
    },
  });
  try {
    const request = encodeRequest({ command: "attach", way: "over-ssh" });
    sendWithDescriptors(control, new TextEncoder().encode(request), fds, path, "control");
    watch.want(true, false);
    await reactor.run(() => isOver, signal);
  } finally {
    watch.stop();
    libc().close(control);
  }
}
