/** One QEMU that waits for a VM: started, asked, loaded, and surely ended. */
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

/** What is said of one that ends as it starts, while it loads a state, and while it waits for one. */
const FAILURES = {
  start: "it does not start",
  load: "it does not take the VM's state",
  wait: "it has ended",
} as const;

/**
 * Keeps a standby from outliving its kemari: a bystander waits for a word on our pipe, and kills its
 * whole group when that ends without one. After the word the QEMU is on its own.
 */
const WATCHED =
  'exec 3<&0; ( ( read -r word; [ "$word" = keep ] || kill -9 0 ) <&3 2>/dev/null & ); ' +
  'exec 3<&- </dev/null >&2; exec /bin/sh -c "$1"';

/** A QEMU process that answers over QMP. Whoever starts it ends it, or lets it be. */
export class StandbyProcess {
  readonly #child: Deno.ChildProcess;
  readonly #stdin: WritableStreamDefaultWriter<Uint8Array>;
  #words = "";
  readonly #read: Promise<void>;
  /** Resolves to the exit code when the process has ended. */
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

  /** @param command A shell command; its stdout goes where its stderr goes. */
  static start(
    command: string,
    qmpPath: string,
    onWords: (line: string) => void,
  ): StandbyProcess {
    try {
      // A group of its own, so that all of it can be ended, and Ctrl-C is ours to act on.
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

  /** QEMU's own process id; its shell's before there is a QEMU. */
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
  /** The last that it said on stderr. */
  get lastWords(): string {
    return this.#words.trim();
  }

  /** Waits until QMP answers. @throws {QemuError} with its last words if it ends instead. */
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

  /** Lets it live on without us. */
  async keep(): Promise<void> {
    await this.#stdin.write(new TextEncoder().encode("keep\n"));
  }

  /**
   * Ends it and all that it started.
   *
   * @returns When none of it is left: only then may another VM run in its place.
   * @throws {TransportError} if something of it is still there.
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

  /** The error for a QEMU that has ended, or is about to: with its own words. */
  async failure(phase: keyof typeof FAILURES): Promise<QemuError> {
    // What it says on its way out comes a moment after its end.
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

/** Sets what a load needs, and where QEMU is to listen for it. */
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
 * Sends a state to a QEMU that listens for it, and waits until it has all of it.
 *
 * @throws {KemariError} if it ends or refuses; whether it runs is not touched.
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
    // Its end is the reason, if that is why it stopped reading.
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

/** Joins small pieces. A batch is overwritten by the next. */
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

/** Whether what is left of a group has ended and only waits for its parent to notice. */
function onlyZombies(group: number): boolean {
  for (const { name } of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = Deno.readTextFileSync(`/proc/${name}/stat`);
      const [state, , pgrp] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      if (Number(pgrp) === group && state !== "Z") return false;
    } catch {
      // It has ended meanwhile.
    }
  }
  return true;
}
