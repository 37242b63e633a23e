/**
 * Watches the processes that were given the VM's state, until it is known what became of the VM.
 */
import { judgeSuccessor, type SuccessorFate } from "../../decisions/successor.ts";
import { kindOf } from "../system/channel.ts";
import { childrenOf } from "../system/process_tree.ts";

const POLL_MS = 10;

/** A process, distinguished from a later one with the same number. */
interface Watched {
  readonly pid: number;
  readonly startedAt: string;
}

/** The processes that read from a descriptor. To be made while they read. */
export class Successor {
  readonly #link: string;
  readonly #qemus: readonly Watched[];

  /**
   * @param link Their descriptor, as a link in /proc: `pipe:[4711]`, or a FIFO's path.
   * @param among The processes to consider.
   */
  private constructor(link: string, among: Iterable<number>) {
    this.#link = link;
    this.#qemus = [...among].flatMap((pid) => {
      const startedAt = startOf(pid);
      if (startedAt === undefined || !isIncomingQemu(pid) || !holds(pid, link)) return [];
      return [{ pid, startedAt }];
    });
  }

  /**
   * The readers of the pipe that stdout is. A device may be open in any process, without being
   * read.
   */
  static ofStdout(): Successor {
    if (kindOf(1) !== "pipe") return new Successor("", []);
    const pids = [...Deno.readDirSync("/proc")].map(({ name }) => Number(name));
    return new Successor(linkOf("self", 1), pids.filter((pid) => pid > 0 && pid !== Deno.pid));
  }

  /** A command that has a pipe as its stdin, and the processes that it has started. */
  static ofCommand(pid: number): Successor {
    const pids = [pid];
    for (const each of pids) pids.push(...childrenOf(each));
    return new Successor(linkOf(pid, 0), pids);
  }

  /**
   * Waits until the VM's fate is known.
   *
   * @param ended Returns the command's exit code, once there is one; called repeatedly.
   * @param sleep Lets other work go on.
   */
  async fate(
    ended: () => number | undefined,
    sleep: (ms: number) => Promise<void>,
  ): Promise<Exclude<SuccessorFate, "wait">> {
    const begun = performance.now();
    let closedAt: number | undefined;
    for (;;) {
      const now = performance.now();
      const alive = this.#qemus.filter(({ pid, startedAt }) => startOf(pid) === startedAt);
      if (!alive.some(({ pid }) => holds(pid, this.#link))) closedAt ??= now;
      const exitCode = ended();
      const fate = judgeSuccessor({
        isQemu: this.#qemus.length > 0,
        isAlive: exitCode === undefined && (this.#qemus.length === 0 || alive.length > 0),
        exitCode,
        closedMs: closedAt === undefined ? undefined : now - closedAt,
        sinceMs: now - begun,
      });
      if (fate !== "wait") return fate;
      await sleep(POLL_MS);
    }
  }
}

function linkOf(pid: number | "self", fd: number | string): string {
  try {
    return Deno.readLinkSync(`/proc/${pid}/fd/${fd}`);
  } catch {
    return "";
  }
}

function holds(pid: number, link: string): boolean {
  try {
    for (const { name } of Deno.readDirSync(`/proc/${pid}/fd`)) {
      if (linkOf(pid, name) === link) return true;
    }
  } catch {
    // The process has ended, or is another user's.
  }
  return false;
}

function isIncomingQemu(pid: number): boolean {
  try {
    return /(^|\0)--?incoming(\0|=)/.test(Deno.readTextFileSync(`/proc/${pid}/cmdline`));
  } catch {
    return false;
  }
}

/** When a process began; `undefined` if it has ended (zombies included). */
function startOf(pid: number): string | undefined {
  try {
    const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return "ZX".includes(fields[0]) ? undefined : fields[19];
  } catch {
    return undefined;
  }
}
