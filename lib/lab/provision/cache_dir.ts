/** Where provisioned parts live, and the lock that keeps two runs from building the same part. */

import { TransportError, UsageError } from "../../errors.ts";
import { delay } from "../../host/system/delay.ts";

/** Something to tell the person who waits. One line, without a newline. */
type OnProgress = (line: string) => void;

/** What every provisioning step takes. */
export interface ProvisionOptions {
  readonly onProgress?: OnProgress;
  /** Aborting ends child processes; what was downloaded stays for the next run. */
  readonly signal?: AbortSignal;
}

/**
 * The cache folder: `$XDG_CACHE_HOME/kemari`, or `~/.cache/kemari`.
 *
 * @throws {UsageError} If neither variable is set.
 */
export function cacheDir(): string {
  const xdg = Deno.env.get("XDG_CACHE_HOME");
  if (xdg) return `${xdg}/kemari`;
  const home = Deno.env.get("HOME");
  if (home) return `${home}/.cache/kemari`;
  throw new UsageError("no cache folder: neither XDG_CACHE_HOME nor HOME is set", {
    hint: "set XDG_CACHE_HOME to a folder that can be written",
  });
}

const LOCK_POLL_MS = 100;
const LOCK_SILENCE_MS = 500;

/**
 * Runs `body` while holding an exclusive lock on `path`, which is created if missing.
 *
 * The lock is the kernel's (`flock`), so that it ends with the process that holds it, however
 * that ends: a lock left by a dead process never stands in the way. The file holds the owner's
 * pid for the message that a waiting run prints.
 *
 * @throws {TransportError} If the lock file cannot be opened, or the wait was aborted.
 */
export async function withLock<T>(
  path: string,
  options: ProvisionOptions,
  body: () => Promise<T>,
): Promise<T> {
  let file: Deno.FsFile;
  try {
    file = await Deno.open(path, { create: true, read: true, write: true });
  } catch (cause) {
    throw new TransportError(path, "spawn", "the lock file cannot be opened", {
      cause,
      hint: "make the folder writable, or set XDG_CACHE_HOME to one that is",
    });
  }
  try {
    const startedMs = Date.now();
    let told = false;
    while (!await file.tryLock(true)) {
      if (options.signal?.aborted) {
        throw new TransportError(path, "spawn", "interrupted while waiting for another setup");
      }
      if (!told && Date.now() - startedMs > LOCK_SILENCE_MS) {
        told = true;
        const owner = (await Deno.readTextFile(path)).trim();
        options.onProgress?.(`waiting for another setup to end (pid ${owner || "unknown"})`);
      }
      await delay(LOCK_POLL_MS);
    }
    await file.truncate(0);
    await file.seek(0, Deno.SeekMode.Start);
    await file.write(new TextEncoder().encode(`${Deno.pid}\n`));
    return await body();
  } finally {
    file.close();
  }
}

/** Whether `path` exists and this user can see it. */
export async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}

/** The first file called `name` on PATH, or `undefined`. */
export async function findProgram(name: string): Promise<string | undefined> {
  for (const folder of (Deno.env.get("PATH") ?? "").split(":")) {
    if (folder !== "" && await exists(`${folder}/${name}`)) return `${folder}/${name}`;
  }
  return undefined;
}

/**
 * Waits until another process has made `path`.
 *
 * @throws {TransportError} If it has not after `timeoutMs`.
 */
export async function waitForPath(path: string, timeoutMs = 10_000): Promise<void> {
  const deadlineMs = Date.now() + timeoutMs;
  while (!await exists(path)) {
    if (Date.now() > deadlineMs) {
      throw new TransportError(path, "connect", `it did not appear within ${timeoutMs} ms`);
    }
    await delay(5);
  }
}

/** Single-quotes a word for a POSIX shell. */
export function shellQuote(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}
