import { TransportError } from "../../errors.ts";

/** The largest key file or certificate. */
const MAX_BYTES = 1 << 20;
/** The mode bits for everybody but the owner. */
const OTHERS = 0o077;

/** Identity of a file when it was checked: another file, or other content, has another stamp. */
export function stampOf(path: string): string {
  try {
    const { ino, mtime, size, mode, uid } = Deno.statSync(path);
    return `${ino} ${mtime?.getTime()} ${size} ${mode} ${uid}`;
  } catch {
    return "none";
  }
}

/**
 * Checks whether a file can be read.
 *
 * @param isPrivate Whether the file holds a secret. Its owner must be this user or root, and nobody
 *   else may have access.
 * @throws {TransportError} The file cannot be read, is too large, or is not secret.
 */
export function checkFile(path: string, isPrivate: boolean): void {
  const fail = (what: string, hint?: string, cause?: unknown): never => {
    throw new TransportError(path, "read", what, { party: "user", hint, cause });
  };
  let info: Deno.FileInfo;
  try {
    info = Deno.statSync(path);
    Deno.openSync(path).close();
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) {
      return fail("there is no such file", undefined, cause);
    }
    return fail("it cannot be read", "look at its owner and mode", cause);
  }
  if (!info.isFile) fail("it is no file");
  if (info.size > MAX_BYTES) fail("it is too large to be a key or a certificate");
  if (!isPrivate) return;
  const mode = (info.mode ?? 0) & 0o777;
  if ((mode & OTHERS) !== 0) {
    fail(
      `others may read or change this secret (mode ${mode.toString(8).padStart(4, "0")})`,
      `chmod 600 ${path}, and make a new key if anybody may have read this one`,
    );
  }
  if (info.uid !== 0 && info.uid !== Deno.uid()) {
    fail(`this secret belongs to another user (${info.uid})`, `chown it to whoever runs kemari`);
  }
}
