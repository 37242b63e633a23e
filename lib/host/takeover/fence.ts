/** Fencing: the command that makes sure that the primary is dead. */
import { TransportError } from "../../errors.ts";
import { childrenOf } from "../system/process_tree.ts";
import { delay } from "../system/delay.ts";

/** Whether `--fence` names a command; "none" is the explicit choice of no command. */
export function isFence(option: string | undefined): option is string {
  return option !== undefined && option !== "none";
}

/**
 * Runs the command that makes sure the primary is dead.
 *
 * @param mayBeAskedAgain Whether an operator can ask for another try.
 * @throws {TransportError} unless the command exits 0 within the time limit.
 */
export async function fence(
  command: string,
  timeoutMs: number,
  signal: AbortSignal,
  log: (line: string) => void,
  mayBeAskedAgain: boolean,
): Promise<void> {
  signal.throwIfAborted();
  const next = mayBeAskedAgain ? ", then run kemari failover again" : "";
  // In a process group of its own: the process that hangs may be a child of the shell.
  const child = new Deno.Command("setsid", {
    args: ["--wait", "/bin/sh", "-c", command],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const lines = async (stream: ReadableStream<Uint8Array<ArrayBuffer>>) => {
    let rest = "";
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      const parts = (rest + text).split("\n");
      rest = parts.pop()!;
      parts.forEach(log);
    }
    if (rest !== "") log(rest);
  };
  const reading = Promise.all([lines(child.stdout), lines(child.stderr)]);
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeout = new Promise<"timeout">((resolve) => {
    timer = setTimeout(() => resolve("timeout"), timeoutMs);
    signal.addEventListener("abort", () => resolve("timeout"), { once: true });
  });
  const outcome = await Promise.race([child.status, timeout]);
  clearTimeout(timer);
  if (outcome === "timeout") {
    endGroup(child.pid);
    signal.throwIfAborted();
    throw new TransportError("--fence", "spawn", `no end after ${timeoutMs} ms: not activating`, {
      party: "fence",
      hint: `make sure by hand that the primary is dead${next}`,
    });
  }
  await Promise.race([reading, delay(1000)]);
  if (outcome.code !== 0) {
    throw new TransportError("--fence", "spawn", `failed with ${outcome.code}: not activating`, {
      party: "fence",
      hint: `make sure by hand that the primary is dead${next}`,
    });
  }
}

function endGroup(pid: number): void {
  // setsid forks if it already leads a group: then its child leads the new group.
  for (const target of [pid, ...childrenOf(pid)]) {
    for (const id of [-target, target]) {
      try {
        Deno.kill(id, "SIGKILL");
      } catch {
        // No such group or process.
      }
    }
  }
}
