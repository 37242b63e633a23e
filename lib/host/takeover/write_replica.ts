/** Writes the replica's stream to the process that is to take the VM over. */
import { QemuError, TransportError } from "../../errors.ts";
import type { Replica } from "../../replica/secondary/replica.ts";
import { adopt, appends, kindOf, OutputQueue } from "../system/channel.ts";
import { libc } from "../system/libc.ts";
import { ERRNO, SEEK_CUR, SEEK_END, SEEK_SET } from "../system/linux.ts";
import { endTree } from "../system/process_tree.ts";
import { delay } from "../system/delay.ts";
import type { Reactor } from "../system/reactor.ts";
import { Successor } from "./successor.ts";

/** How much of the composed stream is queued at a time. */
const BATCH_BYTES = 1 << 20;

/** Called with the number of bytes written so far. */
export type OnProgress = (bytes: number) => void;

/**
 * Called with `true` before the last bytes are written, after which a QEMU may let the VM run; and
 * with `false` when it is known that no QEMU runs it.
 */
export type OnGiven = (isGiven: boolean) => void;

/**
 * Writes the replica's stream to stdout, completely.
 *
 * A regular file without room for all of it is cut back to its former length: half a stream looks
 * like a whole one.
 *
 * @returns The number of bytes; resolves when a QEMU that reads them has loaded them.
 * @throws {TransportError} when the reader is gone or the disk is full. The replica is unharmed.
 * @throws {QemuError} if the QEMU that has read everything is seen to end.
 */
export async function writeToStdout(
  replica: Replica,
  reactor: Reactor,
  signal: AbortSignal,
  onProgress: OnProgress,
  onGiven: OnGiven,
): Promise<number> {
  const isFile = kindOf(1) === "file";
  const start = isFile ? libc().lseek(1, 0n, appends(1) ? SEEK_END : SEEK_CUR) : 0n;
  const { fd, release } = adopt(1, "write");
  const readers = isFile ? undefined : Successor.ofStdout();
  const queue = new OutputQueue(fd, "stdout", "successor");
  const stream = replica.compose();
  let writable = true;
  const watch = reactor.watch(fd, { writable: () => writable = true });
  surviveFileSizeLimit();
  try {
    for (;;) {
      let ended = false;
      while (queue.pendingBytes < BATCH_BYTES) {
        const next = stream.next();
        if (next.done) {
          ended = true;
          onGiven(true);
          break;
        }
        queue.push([next.value]);
      }
      if (!queue.flush()) {
        writable = false;
        watch.want(false, true);
        await reactor.run(() => writable, signal);
        watch.want(false, false);
      } else if (ended) break;
      onProgress(queue.written);
      // A file takes everything at once: this lets signals and the control socket have their turn.
      await reactor.turn(signal);
    }
    const fate = await readers?.fate(() => undefined, (ms) => reactor.sleep(ms, signal));
    if (fate === "failed") {
      onGiven(false);
      throw new QemuError(
        "stdout",
        "Ended",
        "the QEMU behind the pipe has ended with the VM's state",
        {
          party: "successor",
          hint:
            "its messages are on its own stderr: is it the primary's machine, with the same -m " +
            "and devices?",
        },
      );
    }
    return queue.written;
  } catch (error) {
    if (isFile) {
      libc().ftruncate(1, start);
      libc().lseek(1, start, SEEK_SET);
      onGiven(false);
    }
    throw error;
  } finally {
    watch.stop();
    release();
  }
}

let survivesFileSizeLimit = false;

/**
 * Without a listener, SIGXFSZ would end this process at a file size limit, and the replica with it;
 * the write reports EFBIG as well. The listener stays: removed while the signal is on its way, it
 * would not help.
 */
function surviveFileSizeLimit(): void {
  if (survivesFileSizeLimit) return;
  survivesFileSizeLimit = true;
  Deno.addSignalListener("SIGXFSZ", () => {});
}

/** Whether more disk space would remove the error. */
export function isDiskFull(error: unknown): boolean {
  return error instanceof TransportError &&
    (error.cause === ERRNO.ENOSPC || error.cause === ERRNO.EDQUOT || error.cause === ERRNO.EFBIG);
}

/** A child that takes the stream on its stdin. */
export interface StreamConsumer {
  /** The child's exit code; 128 + n if signal n ended it. */
  readonly exitCode: Promise<number>;
  kill(): void;
}

/**
 * Starts a shell command, such as a QEMU with `-incoming fd:0`, and writes the replica's stream to
 * its stdin.
 *
 * @param option The option that has the command.
 * @returns Resolves when the child has read the whole stream, and loaded it as far as can be seen;
 *   the child lives on.
 * @throws {QemuError} if the child ends before that; {TransportError} if it only stops reading.
 */
export async function writeToCommand(
  replica: Replica,
  option: "--exec" | "--standby",
  command: string,
  signal: AbortSignal,
  onProgress: OnProgress,
  onGiven: OnGiven,
): Promise<StreamConsumer> {
  signal.throwIfAborted();
  const party = option === "--exec" ? "successor" : "standby";
  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command("/bin/sh", {
      args: ["-c", command],
      stdin: "piped",
      stdout: "inherit",
      stderr: "inherit",
    }).spawn();
  } catch (cause) {
    throw new TransportError(option, "spawn", "cannot start a shell", { party, cause });
  }
  let ended: number | undefined;
  const exitCode = child.status.then(({ code }) => ended = code);
  const kill = () => endTree(child.pid);
  signal.addEventListener("abort", kill);
  exitCode.finally(() => signal.removeEventListener("abort", kill));
  const writer = child.stdin.getWriter();
  let written = 0;
  let successor: Successor;
  try {
    let batch = new Uint8Array(BATCH_BYTES);
    let used = 0;
    for (const piece of replica.compose()) {
      for (let at = 0; at < piece.length;) {
        const part = Math.min(piece.length - at, batch.length - used);
        batch.set(piece.subarray(at, at + part), used);
        used += part;
        at += part;
        if (used < batch.length) continue;
        await writer.write(batch);
        written += used;
        onProgress(written);
        batch = new Uint8Array(BATCH_BYTES);
        used = 0;
      }
    }
    successor = Successor.ofCommand(child.pid);
    signal.throwIfAborted();
    onGiven(true);
    await writer.write(batch.subarray(0, used));
    await writer.close();
  } catch (cause) {
    signal.throwIfAborted();
    const code = await Promise.race([exitCode, delay(1000)]);
    kill();
    // A child that has not read everything cannot run the VM.
    onGiven(false);
    const what = `the command stopped reading after ${written} bytes`;
    const hint = option === "--exec"
      ? "does it start the same machine, with -incoming fd:0?"
      : "does it start the same machine? try it by hand";
    if (code === undefined) throw new TransportError(option, "write", what, { party, cause, hint });
    throw new QemuError(option, "Ended", `${what} and ended with ${code}`, { party, cause, hint });
  }
  const fate = await successor.fate(() => ended, delay);
  signal.throwIfAborted();
  if (fate === "failed") {
    onGiven(false);
    throw new QemuError(
      option,
      "Ended",
      "the command took the VM's state and ended" + (ended === undefined ? "" : ` with ${ended}`),
      {
        party,
        hint: "its messages are above: is it the primary's machine, with the same -m and devices?",
      },
    );
  }
  return { exitCode, kill };
}
