/**
 * The process that QEMU waits for, where `kemari send` may have to outlive it.
 *
 * QEMU closes an `exec:` channel by waiting, in its main loop, for the command to end. A `send` that
 * speaks to its monitor then gets no answer, and one that serves the VM's taps on ends when QEMU lets
 * go of them: each would wait for the other, and the VM with its monitor would hang. A process cannot leave its own number behind, and the runtime
 * cannot fork. So the command that QEMU knows only starts the real one, on the same stdin, stdout and
 * stderr, and ends when that one does, or says that it stays alone.
 *
 * The real one leads a session of its own: signals reach it through the front, once. Between both is a
 * socket. Its end without a word is the front's death, which the real one shares at once: whoever kills
 * the process that he knows means all of it.
 */
import { EXIT } from "../errors.ts";
import { openSocketPair } from "./system/descriptor_passing.ts";
import { cString, libc } from "./system/libc.ts";
import { Reactor, type Watch } from "./system/reactor.ts";
import { selfCommand } from "./system/self_command.ts";
import { F_SETFD, FD_CLOEXEC, O_CLOEXEC, O_RDWR } from "./system/linux.ts";
import { never } from "./system/never.ts";

/** Names the descriptor of the socket to the front. */
const VARIABLE = "KEMARI_SEND_FRONT";

/**
 * Starts this very command line again, and waits for it.
 *
 * @param signal The end is asked for: so is that of the real one.
 * @returns The exit code that is due.
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
    // An end that is asked for is the real one's to carry out.
    await reactor.run(() => code !== undefined, never);
  } finally {
    signal.removeEventListener("abort", passOn);
    reactor.close();
    libc().close(ours);
  }
  return code ?? EXIT.bug;
}

/** The front as the real one sees it. */
export class SendFront {
  #fd: number;
  #watch: Watch | undefined;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** @returns `undefined` where this process was not started by a front. */
  static ofThisProcess(): SendFront | undefined {
    const word = Deno.env.get(VARIABLE);
    if (word === undefined) return undefined;
    Deno.env.delete(VARIABLE);
    const fd = Number(word);
    // The commands that we start are not to hold it.
    if (!Number.isInteger(fd) || libc().fcntl(fd, F_SETFD, BigInt(FD_CLOEXEC)) < 0) {
      return undefined;
    }
    return new SendFront(fd);
  }

  /** Shares the front's death from now on. */
  watch(reactor: Reactor): void {
    this.#watch = reactor.watch(this.#fd, { readable: () => Deno.kill(Deno.pid, "SIGKILL") });
    this.#watch.want(true, false);
  }

  /**
   * Ends stdin and stdout, and lets the front end: this process goes on alone. QEMU's threads wait
   * for the end of its pipes, where they read, and its main loop for the front.
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
 * Puts /dev/null in the place of stdin and stdout, and of every copy: the runtime keeps one of stdout
 * that it never closes, so that a pipe's reader would not see its end.
 */
function endStandardStreams(): void {
  const nothing = libc().open(cString("/dev/null"), O_RDWR | O_CLOEXEC, 0);
  const ends = [linkOf("0"), linkOf("1")];
  for (const { name } of [...Deno.readDirSync("/proc/self/fd")]) {
    if (name !== "2" && ends.includes(linkOf(name))) libc().dup2(nothing, Number(name));
  }
  libc().close(nothing);
}

/** Which pipe or socket a descriptor is; its own word for what nobody can be waiting at. */
function linkOf(fd: string): string {
  try {
    const link = Deno.readLinkSync(`/proc/self/fd/${fd}`);
    return /^(pipe|socket):/.test(link) ? link : `nobody at ${fd}`;
  } catch {
    return `nobody at ${fd}`;
  }
}
