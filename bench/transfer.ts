/** A stream's way from one process to another, and what it takes. */
import { TransportError } from "../lib/errors.ts";
import { watchCpuMs } from "../lib/lab/vms/process_cpu.ts";
import { watchPeakMemory } from "../lib/lab/vms/process_memory.ts";
import { atExit, endQuietly } from "../lib/lab/program/work_folder.ts";
import { warmMemory } from "./warm_memory.ts";

/** Beside the replica: buffers, the programs themselves. */
const WARM_EXTRA_BYTES = 2 ** 28;

/** One transfer's result. */
export interface Transfer {
  readonly seconds: number;
  readonly senderPeakBytes: number;
  readonly receiverPeakBytes: number;
  /** User and system time of each end, from start to end. */
  readonly senderCpuMs: number;
  readonly receiverCpuMs: number;
}

/** The two ends of one competitor. */
export interface Ends {
  /** Starts to listen. @returns Its process and where to send. */
  listen(): Promise<{ child: Deno.ChildProcess; target: string }>;
  send(target: string): Deno.ChildProcess;
}

export async function runTransfer(
  ends: Ends,
  ramBytes: number,
  signal: AbortSignal,
): Promise<Transfer> {
  const children: Deno.ChildProcess[] = [];
  const stops: (() => number)[] = [];
  const forget = atExit(() => children.forEach(endQuietly));
  try {
    const { child: receiver, target } = await ends.listen();
    children.push(receiver);
    stops.push(watchPeakMemory(receiver.pid), watchCpuMs(receiver.pid));
    await warmMemory(ramBytes + WARM_EXTRA_BYTES);
    signal.throwIfAborted();
    const begun = performance.now();
    const sender = ends.send(target);
    children.push(sender);
    stops.push(watchPeakMemory(sender.pid), watchCpuMs(sender.pid));
    const statuses = await Promise.all([receiver.status, sender.status]);
    const seconds = (performance.now() - begun) / 1000;
    signal.throwIfAborted();
    if (statuses.some(({ success }) => !success)) {
      throw new TransportError(target, "close", `exit codes ${statuses.map(({ code }) => code)}`);
    }
    const [receiverPeakBytes, receiverCpuMs, senderPeakBytes, senderCpuMs] = stops.map((stop) =>
      stop()
    );
    return { seconds, receiverPeakBytes, receiverCpuMs, senderPeakBytes, senderCpuMs };
  } finally {
    for (const stop of stops) stop();
    for (const child of children) endQuietly(child);
    forget();
  }
}

/** @param options What both ends are told beyond the address. */
export function kemariEnds(
  command: readonly string[],
  file: string,
  signal: AbortSignal,
  options: readonly string[] = [],
): Ends {
  const [program, ...first] = command;
  return {
    async listen() {
      const child = new Deno.Command(program, {
        args: [...first, "recv", "127.0.0.1:0", ...options, "--progress", "never"],
        stdin: "null",
        stdout: "null",
        stderr: "piped",
        signal,
      }).spawn();
      return { child, target: await listeningAddress(child) };
    },
    // Only a shell can give a child an open file as its stdin; exec keeps the pid.
    send: (target) =>
      new Deno.Command("/bin/sh", {
        args: ["-c", 'file=$1; shift; exec "$@" < "$file"', "sh", file, ...command]
          .concat("send", target, ...options, "--quiet", "--progress", "never"),
        stdin: "null",
        stdout: "null",
        stderr: "inherit",
        signal,
      }).spawn(),
  };
}

/** The address in recv's first message; what it says later is read and dropped. */
async function listeningAddress(
  child: Deno.ChildProcess & { readonly stderr: ReadableStream<Uint8Array<ArrayBuffer>> },
): Promise<string> {
  const reader = child.stderr.pipeThrough(new TextDecoderStream()).getReader();
  let said = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) {
      throw new TransportError("kemari recv", "listen", `ended at once: ${said.trim()}`);
    }
    said += value;
    const found = /listening on (\S+:\d+)\n/.exec(said)?.[1];
    if (found === undefined) continue;
    void (async () => {
      while (!(await reader.read()).done);
    })().catch(() => {});
    return found;
  }
}

/** Whether /dev/shm has so much room: a file there is read without a disk. */
export async function sharedMemoryHas(bytes: number): Promise<boolean> {
  try {
    const { stdout } = await new Deno.Command("df", {
      args: ["--output=avail", "-B1", "/dev/shm"],
    }).output();
    return Number(new TextDecoder().decode(stdout).split("\n")[1]) > bytes;
  } catch {
    return false;
  }
}
