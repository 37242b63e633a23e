/** The processes that were given the VM's state, watched until it is known what became of it. */
import { judgeSuccessor, type SuccessorFate } from "../../decisions/successor.ts";
import { kindOf } from "../system/channel.ts";
import { childrenOf } from "../system/process_tree.ts";

const POLL_MS = 10;

/** A process that lives, told from a later one of the same number. */
interface Watched {
  readonly pid: number;
  readonly startedAt: string;
}

/** Those who read certain bytes. To be made while they read. */
export class Successor {
  readonly #link: string;
  readonly #qemus: readonly Watched[];

  /**
   * @param link What their descriptor is, as /proc tells it: `pipe:[4711]`, or a FIFO's path.
   * @param among The processes that may be it.
   */
  private constructor(link: string, among: Iterable<number>) {
    this.#link = link;
    this.#qemus = [...among].flatMap((pid) => {
      const startedAt = startOf(pid);
      if (startedAt === undefined || !isIncomingQemu(pid) || !holds(pid, link)) return [];
      return [{ pid, startedAt }];
    });
  }

  /** Whoever reads the pipe that our stdout is; of a device anybody may have it open, and read nothing. */
  static ofStdout(): Successor {
    if (kindOf(1) !== "pipe") return new Successor("", []);
    const pids = [...Deno.readDirSync("/proc")].map(({ name }) => Number(name));
    return new Successor(linkOf("self", 1), pids.filter((pid) => pid > 0 && pid !== Deno.pid));
  }

  /** A command that has a pipe as its stdin, and what it has started. */
  static ofCommand(pid: number): Successor {
    const pids = [pid];
    for (const each of pids) pids.push(...childrenOf(each));
    return new Successor(linkOf(pid, 0), pids);
  }

  /**
   * Waits until it can be said.
   *
   * @param ended The command's exit code, once it has one; asked again and again.
   * @param sleep Lets other things go on.
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
    // It has ended, or is another user's.
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

/** When a process began; `undefined` of one that has ended, noticed by its parent or not. */
function startOf(pid: number): string | undefined {
  try {
    const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return "ZX".includes(fields[0]) ? undefined : fields[19];
  } catch {
    return undefined;
  }
}
