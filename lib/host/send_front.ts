/**
 * The process that QEMU waits for, if `kemari send` may have to live longer.
 *
 * QEMU closes an `exec:` channel by waiting, in its main loop, for the command to end. A `send`
 * that uses QEMU's monitor then gets no answer, and a `send` that serves the VM's taps ends only
 * when QEMU disconnects from them: each would wait for the other, and the VM with its monitor would
 * hang. A process cannot give up its number, and the runtime cannot fork. So the command that QEMU
 * knows (the front) only starts the real `send`, with the same stdin, stdout and stderr, and ends
 * when the real one ends, or says that it goes on alone.
 *
 * The real `send` leads a session of its own, so that signals reach it once, through the front. A
 * socket connects both. If it ends without a message, the front was killed, and the real `send`
 * ends at once, too: killing the process that QEMU knows means killing `send`.
 */
import { EXIT } from "../errors.ts";
import { openSocketPair } from "./system/descriptor_passing.ts";
import { cString, libc } from "./system/libc.ts";
import { Reactor, type Watch } from "./system/reactor.ts";
import { selfCommand } from "./system/self_command.ts";
import { F_SETFD, FD_CLOEXEC, O_CLOEXEC, O_RDWR } from "./system/linux.ts";
import { never } from "./system/never.ts";

/** The variable that names the descriptor of the socket to the front. */
const VARIABLE = "KEMARI_SEND_FRONT";

/**
 * Starts this very command line again, and waits for it.
 *
 * @param signal Aborted when this process is asked to end: the real `send` is then asked too.
 * @returns The exit code.
 */
export async function stayInFront(signal: AbortSignal): Promise<number> {
  const reactor = new Reactor();
  const { ours, theirs } = openSocketPair("front");
  libc().fcntl(theirs, F_SETFD, 0n);
  const [program, ...args] = selfCommand(Deno.args, []);
  const child = new Deno.Command(program, {
    args,
    env: { [VARIABLE]: `${theirs}` },
    stdin: "inherit",
    stdout: "inherit",
    stderr: "inherit",
    detached: true,
  }).spawn();
  libc().close(theirs);
  const passOn = () => {
    try {
      child.kill("SIGTERM");
    } catch {
      // It has just ended.
    }
  };
  if (signal.aborted) passOn();
  signal.addEventListener("abort", passOn);
  let code: number | undefined;
  const word = new Uint8Array(1);
  const watch = reactor.watch(ours, {
    readable: () => {
      if (libc().read(ours, word, 1n) === 1n) code = word[0];
      watch.stop();
    },
  });
  watch.want(true, false);
  child.status.then((status) => {
    code ??= status.code;
    reactor.wake();
  });
  try {
    // The real `send` carries the end out.
    await reactor.run(() => code !== undefined, never);
  } finally {
    signal.removeEventListener("abort", passOn);
    reactor.close();
    libc().close(ours);
  }
  return code ?? EXIT.bug;
}

/** The front, for the real `send`. */
export class SendFront {
  #fd: number;
  #watch: Watch | undefined;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** @returns `undefined` if this process was not started by a front. */
  static ofThisProcess(): SendFront | undefined {
    const word = Deno.env.get(VARIABLE);
    if (word === undefined) return undefined;
    Deno.env.delete(VARIABLE);
    const fd = Number(word);
    // Commands that this process starts must not inherit the socket.
    if (!Number.isInteger(fd) || libc().fcntl(fd, F_SETFD, BigInt(FD_CLOEXEC)) < 0) {
      return undefined;
    }
    return new SendFront(fd);
  }

  /** Ends this process with the front from now on. */
  watch(reactor: Reactor): void {
    this.#watch = reactor.watch(this.#fd, { readable: () => Deno.kill(Deno.pid, "SIGKILL") });
    this.#watch.want(true, false);
  }

  /**
   * Closes stdin and stdout, and lets the front end: this process goes on alone. QEMU's threads
   * wait for the end of its pipes if they read them, and its main loop waits for the front.
   */
  dismiss(exitCode: number): void {
    if (this.#fd < 0) return;
    this.#watch?.stop();
    endStandardStreams();
    libc().write(this.#fd, new Uint8Array([exitCode]), 1n);
    libc().close(this.#fd);
    this.#fd = -1;
  }
}

/**
 * Replaces stdin and stdout, and every copy of them, by /dev/null: the runtime keeps a copy of
 * stdout open, because of which a pipe's reader would not see the end.
 */
function endStandardStreams(): void {
  const nothing = libc().open(cString("/dev/null"), O_RDWR | O_CLOEXEC, 0);
  const ends = [linkOf("0"), linkOf("1")];
  for (const { name } of [...Deno.readDirSync("/proc/self/fd")]) {
    if (name !== "2" && ends.includes(linkOf(name))) libc().dup2(nothing, Number(name));
  }
  libc().close(nothing);
}

/**
 * Identifies the pipe or socket behind a descriptor; a text of its own for a descriptor that nobody
 * can wait for.
 */
function linkOf(fd: string): string {
  try {
    const link = Deno.readLinkSync(`/proc/self/fd/${fd}`);
    return /^(pipe|socket):/.test(link) ? link : `nobody at ${fd}`;
  } catch {
    return `nobody at ${fd}`;
  }
}
