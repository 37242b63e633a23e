/** What both forms of the drill do with processes, guests and time. */
import { KemariError, QemuError, TransportError } from "../../errors.ts";
import { askStatus } from "../../host/system/ask_control.ts";
import type { SenderStatus } from "../../control/sender_status.ts";
import type { RunningVm } from "../vms/standby_guest.ts";
import { until } from "./until.ts";

/** The longest that anything in a drill may take. */
export const TIMEOUT_MS = 60_000;

/** What a command in the guest says. @throws {QemuError} if it fails. */
export async function say(vm: RunningVm, command: string): Promise<string> {
  const { code, output } = await vm.run(command, { timeoutMs: TIMEOUT_MS });
  if (code === 0) return output.trim();
  throw new QemuError("guest", "GuestError", `${vm.name}: "${command}" ended with ${code}`);
}

/** Starts a command, by way of a shell where its stdout goes elsewhere. */
export function shell(command: readonly string[], redirection?: string): Deno.ChildProcess {
  const [program, ...args] = redirection === undefined
    ? command
    : ["/bin/sh", "-c", `exec "$@" ${redirection}`, "sh", ...command];
  return new Deno.Command(program, {
    args: [...args],
    stdin: "null",
    stdout: redirection === undefined ? "null" : "inherit",
    stderr: "inherit",
  }).spawn();
}

export async function output(program: string, args: string[], signal: AbortSignal): Promise<void> {
  const { success, stderr } = await new Deno.Command(program, { args, signal }).output();
  if (!success) {
    throw new TransportError(program, "spawn", new TextDecoder().decode(stderr).trim());
  }
}

/** Waits until a kemari process serves its control socket. */
export async function answers(
  socket: string,
  child: Deno.ChildProcess,
  signal: AbortSignal,
): Promise<void> {
  await whileAlive(child, "kemari recv", async () => {
    const { state } = await askStatus(socket, signal);
    return state !== "starting";
  }, signal);
}

/** Waits until checkpoints are being committed. */
export async function protectedBy(
  socket: string,
  child: Deno.ChildProcess,
  signal: AbortSignal,
): Promise<void> {
  await whileAlive(child, "kemari protect", async () => {
    const { syncs } = await askStatus(socket, signal);
    return syncs >= 2;
  }, signal);
}

export async function whileAlive(
  child: Deno.ChildProcess,
  name: string,
  ready: () => Promise<boolean>,
  signal: AbortSignal,
): Promise<void> {
  let ended: number | undefined;
  child.status.then(({ code }) => ended = code);
  await until(
    async () => {
      if (ended !== undefined) {
        throw new TransportError(name, "spawn", `it ended with ${ended} before it was ready`);
      }
      try {
        return await ready();
      } catch (error) {
        if (error instanceof KemariError) return false;
        throw error;
      }
    },
    name,
    { signal },
  );
}

export function kill(pid: number): void {
  try {
    Deno.kill(pid, "SIGKILL");
  } catch {
    // It has ended.
  }
}

/** How long a process may take to wind up before it is killed. */
const WIND_UP_MS = 3000;

/** Ends a process in order, so that it removes what it made. */
export async function end(child: Deno.ChildProcess): Promise<void> {
  try {
    child.kill("SIGTERM");
  } catch {
    // It has ended.
  }
  const timer = setTimeout(() => kill(child.pid), WIND_UP_MS);
  await child.status;
  clearTimeout(timer);
}

/** What both forms report of the sender, as it was before the kill. */
export function senderFigures(sender: SenderStatus) {
  const { syncs, syncsPerSecond, pages, zeroPages, wireBytes, pause } = sender;
  return {
    syncs,
    syncsPerSecond,
    pages,
    zeroPages,
    wireBytes,
    pauseP50Ms: pause.p50,
    pauseP99Ms: pause.p99,
  };
}
