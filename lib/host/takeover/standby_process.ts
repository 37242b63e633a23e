/** A QEMU that waits for a VM: starting, asking, loading and ending it. */
import { QemuError, TransportError } from "../../errors.ts";
import { decodeMigrationStatus } from "../../qmp/migration_status.ts";
import { delay } from "../system/delay.ts";
import { libc } from "../system/libc.ts";
import { childrenOf } from "../system/process_tree.ts";
import { QmpClient } from "../vm/qmp_client.ts";
import { SIGKILL } from "../system/linux.ts";

const START_MS = 20_000;
const QMP_POLL_MS = 5;
const LAST_WORDS = 2000;
const KILL_MS = 5000;

/**
 * The messages on a QEMU that ends while it starts, while it loads a state, and while it waits for
 * one.
 */
const FAILURES = {
  start: "it does not start",
  load: "it does not take the VM's state",
  wait: "it has ended",
} as const;

/**
 * Ends a standby with its kemari: a second process waits for a line on a pipe from kemari, and
 * kills the whole group if the pipe ends without it. After the line, the QEMU is on its own.
 */
const WATCHED =
  'exec 3<&0; ( ( read -r word; [ "$word" = keep ] || kill -9 0 ) <&3 2>/dev/null & ); ' +
  'exec 3<&- </dev/null >&2; exec /bin/sh -c "$1"';

/**
 * A QEMU process that answers over QMP. The caller of {@link start} ends it, or lets it live on.
 */
export class StandbyProcess {
  readonly #child: Deno.ChildProcess;
  readonly #stdin: WritableStreamDefaultWriter<Uint8Array>;
  #words = "";
  readonly #read: Promise<void>;
  /** Resolves to the exit code when the process ends. */
  readonly exitCode: Promise<number>;
  #hasEnded = false;

  private constructor(
    child: Deno.ChildProcess,
    readonly qmpPath: string,
    onWords: (line: string) => void,
  ) {
    this.#child = child;
    this.#stdin = child.stdin.getWriter();
    this.#read = this.#readWords(onWords);
    this.exitCode = child.status.then(({ code }) => {
      this.#hasEnded = true;
      return code;
    });
  }

  /** @param command A shell command; its stdout is redirected to its stderr. */
  static start(
    command: string,
    qmpPath: string,
    onWords: (line: string) => void,
  ): StandbyProcess {
    try {
      // In a group of its own, so that all of its processes can be ended, and Ctrl-C reaches only
      // kemari.
      const child = new Deno.Command("setsid", {
        args: ["/bin/sh", "-c", WATCHED, "sh", command],
        stdin: "piped",
        stdout: "null",
        stderr: "piped",
      }).spawn();
      return new StandbyProcess(child, qmpPath, onWords);
    } catch (cause) {
      throw new TransportError("--standby", "spawn", "cannot start a shell", {
        party: "standby",
        cause,
      });
    }
  }

  /** QEMU's process id; that of the shell before QEMU has started. */
  get pid(): number {
    let pid = this.#child.pid;
    for (let next: number | undefined = pid; next !== undefined;) {
      pid = next;
      next = childrenOf(pid).find((child) => commandLineOf(child).includes(this.qmpPath));
    }
    return pid;
  }
  get hasEnded(): boolean {
    return this.#hasEnded;
  }
  /** The end of what it wrote to stderr. */
  get lastWords(): string {
    return this.#words.trim();
  }

  /** Waits until QMP answers. @throws {QemuError} with QEMU's last words if it ends instead. */
  async connect(): Promise<QmpClient> {
    const begun = performance.now();
    while (performance.now() - begun < START_MS) {
      if (this.#hasEnded) throw await this.failure("start");
      try {
        return await QmpClient.connect(this.qmpPath, { timeoutMs: START_MS });
      } catch (error) {
        const cause = (error as { cause?: unknown }).cause;
        if (
          !(cause instanceof Deno.errors.NotFound || cause instanceof Deno.errors.ConnectionRefused)
        ) throw await this.failure("start");
      }
      await delay(QMP_POLL_MS);
    }
    throw new QemuError("standby", "Timeout", `no QMP socket after ${START_MS / 1000} s`, {
      party: "standby",
    });
  }

  /** Lets the process live on without kemari. */
  async keep(): Promise<void> {
    await this.#stdin.write(new TextEncoder().encode("keep\n"));
  }

  /**
   * Ends the process and all that it has started.
   *
   * @returns Resolves when none of them is left: only then may another VM run in its place.
   * @throws {TransportError} if a process of the group is still there.
   */
  async kill(): Promise<void> {
    const group = this.#child.pid;
    libc().kill(-group, SIGKILL);
    await this.#stdin.close().catch(() => {});
    const begun = performance.now();
    while (libc().kill(-group, 0) === 0 && !onlyZombies(group)) {
      if (performance.now() - begun > KILL_MS) {
        throw new TransportError("--standby", "close", `process group ${group} does not end`, {
          party: "standby",
          hint: "kill it by hand: a VM must not be started beside it",
        });
      }
      libc().kill(-group, SIGKILL);
      await delay(1);
    }
    await this.exitCode;
  }

  /** The error for a QEMU that has ended, or is about to end, with its own words. */
  async failure(phase: keyof typeof FAILURES): Promise<QemuError> {
    // Its last words may come a moment after its end.
    await Promise.race([this.#read, delay(300)]);
    const lines = this.lastWords.split("\n").filter((line) => !/: warning: /.test(line));
    const said = lines.slice(-2).join("; ");
    const what = FAILURES[phase];
    return new QemuError("standby", "Ended", said === "" ? what : `${what}: ${said}`, {
      party: "standby",
      hint: "is it the primary's machine, with the same -m and devices? try the command by hand",
    });
  }

  async #readWords(onWords: (line: string) => void): Promise<void> {
    let rest = "";
    for await (const text of this.#child.stderr.pipeThrough(new TextDecoderStream())) {
      this.#words = (this.#words + text).slice(-LAST_WORDS);
      const lines = (rest + text).split("\n");
      rest = lines.pop()!.slice(-LAST_WORDS);
      lines.forEach(onWords);
    }
  }
}

/** Prepares QEMU to load a state, and has it listen for the state. */
export async function awaitState(
  client: QmpClient,
  capabilities: readonly string[],
  socket: string,
): Promise<void> {
  await client.execute("migrate-set-capabilities", {
    capabilities: capabilities.map((capability) => ({ capability, state: true })),
  });
  await client.execute("migrate-incoming", { uri: `unix:${socket}` });
}

/**
 * Sends a state to a QEMU that listens for it, and waits until QEMU has loaded all of it.
 *
 * @throws {KemariError} if QEMU ends or refuses. Does not let the VM run.
 */
export async function sendState(
  client: QmpClient,
  socket: string,
  pieces: Iterable<Uint8Array>,
  timeoutMs: number,
): Promise<void> {
  const done = client.waitEvent("MIGRATION", timeoutMs, ({ data }) => {
    const { phase } = decodeMigrationStatus(data);
    return phase === "completed" || phase === "failed";
  });
  done.catch(() => {});
  const connection = await Deno.connect({ transport: "unix", path: socket });
  try {
    for (const batch of batches(pieces)) {
      for (let at = 0; at < batch.length;) at += await connection.write(batch.subarray(at));
    }
  } catch (cause) {
    // If QEMU stopped reading because it has ended, then its end is the reason.
    await done;
    throw new TransportError("--standby", "write", "the standby stopped reading", {
      party: "standby",
      cause,
    });
  } finally {
    connection.close();
  }
  const { data } = await done;
  const { phase, error } = decodeMigrationStatus(data);
  if (phase !== "failed") return;
  throw new QemuError("migrate-incoming", "GenericError", error ?? "the state was not taken", {
    party: "standby",
  });
}

const BATCH_BYTES = 1 << 20;

/** Joins small pieces. A batch is overwritten by the next one. */
function* batches(pieces: Iterable<Uint8Array>): Generator<Uint8Array> {
  const batch = new Uint8Array(BATCH_BYTES);
  let used = 0;
  for (const piece of pieces) {
    for (let at = 0; at < piece.length;) {
      const part = Math.min(piece.length - at, batch.length - used);
      batch.set(piece.subarray(at, at + part), used);
      used += part;
      at += part;
      if (used < batch.length) continue;
      yield batch;
      used = 0;
    }
  }
  if (used > 0) yield batch.subarray(0, used);
}

function commandLineOf(pid: number): string {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/cmdline`);
  } catch {
    return "";
  }
}

/** Whether the processes left of a group are zombies. */
function onlyZombies(group: number): boolean {
  for (const { name } of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = Deno.readTextFileSync(`/proc/${name}/stat`);
      const [state, , pgrp] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      if (Number(pgrp) === group && state !== "Z") return false;
    } catch {
      // The process has ended meanwhile.
    }
  }
  return true;
}
