/** Finds a moment of a wanted kind: stops a process and looks at the state before it goes on. */
import { TransportError } from "../errors.ts";
import type { DrillHosts } from "./hosts.ts";
import type { Phase } from "./plan.ts";
import type { SeededRandom } from "./seeded_random.ts";
import { delay } from "../host/system/delay.ts";

const TRIES = 40;
/** Longest time between two tries: several synchronizations. */
const BETWEEN_MS = 40;
/** A QEMU without an answer for this long is sending its state. */
const QEMU_ANSWER_MS = 150;

/**
 * Waits for a random moment, of the wanted phase if such a moment comes in time, and leaves the
 * primary's kemari frozen: whatever happens to its host next happens as if at that moment. Its
 * clients wait longer, by the time that the check takes, and what they send meanwhile is not seen.
 * For `unseen`, nothing is frozen, and nothing is checked.
 *
 * @returns The phase found.
 */
export async function freezeSender(
  hosts: DrillHosts,
  wanted: Phase,
  random: SeededRandom,
  signal: AbortSignal,
): Promise<Phase> {
  const { pid } = hosts.protect;
  for (let left = TRIES;; left--) {
    await delay(random.below(BETWEEN_MS), signal);
    if (wanted === "unseen") return wanted;
    await stop(pid, signal);
    const phase = await phaseOf(hosts);
    if (phase === wanted || left === 0) return phase;
    goOn(pid);
  }
}

async function phaseOf(hosts: DrillHosts): Promise<Phase> {
  const state = await hosts.runState(QEMU_ANSWER_MS);
  if (state !== "running") return "checkpoint";
  const { arriving, unreleased } = await hosts.receiverStatus();
  return arriving ? "in-flight" : unreleased > 0 ? "unreleased" : "idle";
}

/** pwrite64 on x86-64, where the guest's QEMU runs. */
const PWRITE = "18";

/**
 * Leaves the secondary's kemari frozen in the middle of a write to its image; it writes there only
 * when it applies a committed transaction.
 *
 * @returns Whether such a moment came before `limitMs`; if not, kemari is not frozen.
 */
export async function freezeApplying(
  hosts: DrillHosts,
  random: SeededRandom,
  limitMs: number,
  signal: AbortSignal,
): Promise<boolean> {
  const { pid } = hosts.recv;
  const image = hosts.image("secondary");
  for (const end = performance.now() + limitMs; performance.now() < end;) {
    await delay(random.below(4), signal);
    await stop(pid, signal);
    if (writesTo(pid, image)) return true;
    goOn(pid);
  }
  return false;
}

/** Stops a kemari: on a busy machine, a process only stops when its turn to run comes. */
async function stop(pid: number, signal: AbortSignal): Promise<void> {
  tell(pid, "SIGSTOP");
  while (!isStopped(pid)) await delay(1, signal);
}

function goOn(pid: number): void {
  tell(pid, "SIGCONT");
}

/** @throws {TransportError} if the process has ended by itself. */
function tell(pid: number, signal: "SIGSTOP" | "SIGCONT"): void {
  try {
    Deno.kill(pid, signal);
  } catch (cause) {
    throw new TransportError("kemari", "read", "it ended before the fault", { cause });
  }
}

/** Whether every thread of a process stands still, or the process is gone. */
function isStopped(pid: number): boolean {
  try {
    return [...Deno.readDirSync(`/proc/${pid}/task`)].every(({ name }) =>
      /^State:\s*[TtZX]/m.test(Deno.readTextFileSync(`/proc/${pid}/task/${name}/status`))
    );
  } catch {
    return true;
  }
}

/** Whether a thread of a process is inside a write to a file at this moment. */
function writesTo(pid: number, path: string): boolean {
  try {
    for (const { name } of Deno.readDirSync(`/proc/${pid}/task`)) {
      const [call, fd] = Deno.readTextFileSync(`/proc/${pid}/task/${name}/syscall`).split(" ");
      if (call !== PWRITE) continue;
      if (Deno.readLinkSync(`/proc/${pid}/fd/${Number(fd)}`) === path) return true;
    }
  } catch {
    // A thread has ended between being listed and being read.
  }
  return false;
}
