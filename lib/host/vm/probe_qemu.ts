/**
 * Asks a QEMU what it can do: a running QEMU, or a program that is started for a moment, without a
 * guest.
 */
import { QemuError, TransportError } from "../../errors.ts";
import type { QmpCommand } from "../../qmp/codec.ts";
import { GUEST_TIMER_QUERIES, type GuestTimer, judgeGuestTimer } from "../../qmp/guest_timer.ts";
import {
  type MigrationSupport,
  probeCapabilities,
  sleepQueries,
  SUPPORT_QUERIES,
} from "../../qmp/migration_support.ts";
import { QmpClient } from "./qmp_client.ts";
import { delay } from "../system/delay.ts";

/** How long it may take until QMP answers, in milliseconds. */
const START_MS = 15_000;
/** How long the program may take to end once told to, in milliseconds. */
const QUIT_MS = 2000;
const POLL_MS = 10;

/** A machine without anything, stopped: it starts in tens of milliseconds and runs no code. */
const EMPTY_MACHINE = "-S -nodefaults -no-user-config -machine none -display none".split(" ");

/**
 * Asks a QEMU program what it can do.
 *
 * @param withKvm Whether to try KVM first; where that fails, QEMU falls back to tcg. The answer
 *   names the accelerator in use.
 * @throws {TransportError} if the program does not start or does not speak QMP; with what it wrote
 *   to stderr.
 */
export async function probeQemu(
  program: string,
  withKvm: boolean,
  signal: AbortSignal,
): Promise<MigrationSupport> {
  const folder = await Deno.makeTempDir({ prefix: "kemari-doctor-" });
  const socket = `${folder}/qmp`;
  const accelerators = [...(withKvm ? ["-accel", "kvm"] : []), "-accel", "tcg"];
  const qmp = ["-qmp", `unix:${socket},server=on,wait=off`];
  let child: Deno.ChildProcess | undefined;
  let graceMs = 0;
  try {
    child = spawn(program, [...EMPTY_MACHINE, ...accelerators, ...qmp], folder);
    const words = lastWords(child.stderr);
    await using client = await connect(program, child, words, socket, signal);
    const support = await readMigrationSupport(client, { hasVm: false });
    await client.execute("quit", undefined, { timeoutMs: QUIT_MS }).catch(() => {});
    graceMs = QUIT_MS;
    return support;
  } finally {
    if (child !== undefined) await end(child, graceMs);
    await Deno.remove(folder, { recursive: true });
  }
}

/**
 * Asks a QEMU everything that decides how it can be protected.
 *
 * @param options.hasVm False for a QEMU that was started only to be asked: the state of its empty
 *   VM does not count.
 * @throws {QemuError} If QEMU does not tell its version.
 * @throws {TransportError} As {@link QmpClient.execute}.
 */
export async function readMigrationSupport(
  client: QmpClient,
  { hasVm }: { readonly hasVm: boolean } = { hasVm: true },
): Promise<MigrationSupport> {
  const { status, ...others } = SUPPORT_QUERIES;
  const { replies, refusals } = await askAll(client, hasVm ? { status, ...others } : others);
  const sleep = await askAll(client, sleepQueries(replies.acpiDevice));
  return probeCapabilities({ ...replies, ...sleep.replies }, refusals);
}

/**
 * Asks a QEMU which timer its guest uses.
 *
 * @param pitState What a stream says of the PIT, see {@link GuestTimerFacts}.
 * @throws {TransportError} As {@link QmpClient.execute}.
 */
export async function readGuestTimer(
  client: QmpClient,
  pitState?: Uint8Array,
): Promise<GuestTimer> {
  const { replies } = await askAll(client, GUEST_TIMER_QUERIES);
  return judgeGuestTimer({ ...replies, pitState });
}

/** Older QEMUs do not know some of these commands; the judgement does without their answers. */
async function askAll(client: QmpClient, queries: Readonly<Record<string, QmpCommand>>) {
  const replies: Record<string, unknown> = {};
  const refusals: Record<string, string> = {};
  for (const [name, query] of Object.entries(queries)) {
    try {
      replies[name] = await client.run(query);
    } catch (error) {
      if (!(error instanceof QemuError)) throw error;
      refusals[name] = error.errorClass;
    }
  }
  return { replies, refusals };
}

function spawn(program: string, args: string[], folder: string): Deno.ChildProcess {
  try {
    return new Deno.Command(program, {
      args,
      cwd: folder,
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).spawn();
  } catch (cause) {
    const reason = cause instanceof Deno.errors.NotFound
      ? "there is no such program"
      : cause instanceof Deno.errors.PermissionDenied
      ? "it may not be executed"
      : (cause as Error).message;
    throw new TransportError(program, "spawn", reason, {
      hint: "name a qemu-system-x86_64 with --qemu or KEMARI_QEMU",
      cause,
    });
  }
}

/** The end of what the program writes to stderr. */
async function lastWords(stderr: ReadableStream<Uint8Array>): Promise<string> {
  let text = "";
  for await (const piece of stderr.pipeThrough(new TextDecoderStream())) {
    text = (text + piece).slice(-2000);
  }
  return text.trim();
}

/** Connects once the program listens, a moment after its socket appears. */
async function connect(
  program: string,
  child: Deno.ChildProcess,
  words: Promise<string>,
  socket: string,
  signal: AbortSignal,
): Promise<QmpClient> {
  let status: Deno.CommandStatus | undefined;
  child.status.then((ended) => status = ended);
  for (const startedAt = performance.now(); performance.now() - startedAt < START_MS;) {
    signal.throwIfAborted();
    if (status !== undefined) {
      const said = (await words).split("\n").at(-1);
      throw new TransportError(
        program,
        "spawn",
        `it ended with status ${status.code} instead of answering` + (said ? `: ${said}` : ""),
        { hint: "this is no QEMU, or one that cannot start here: try it with --version" },
      );
    }
    try {
      return await QmpClient.connect(socket);
    } catch (error) {
      if (!isTooEarly(error)) throw error;
    }
    await delay(POLL_MS);
  }
  throw new TransportError(program, "spawn", `it opened no QMP socket in ${START_MS / 1000} s`);
}

function isTooEarly(error: unknown): boolean {
  const cause = error instanceof TransportError ? error.cause : undefined;
  return cause instanceof Deno.errors.NotFound || cause instanceof Deno.errors.ConnectionRefused;
}

/** Kills the program unless it ends by itself within `graceMs`, and waits for its end. */
async function end(child: Deno.ChildProcess, graceMs: number): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<"late">((resolve) => {
    timer = setTimeout(() => resolve("late"), graceMs);
  });
  if (await Promise.race([child.status, late]) === "late") {
    try {
      child.kill("SIGKILL");
    } catch {
      // The program has just ended.
    }
  }
  clearTimeout(timer);
  await child.status;
}
