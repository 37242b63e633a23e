import { randomBytes } from "node:crypto";
import { TransportError, UsageError } from "../errors.ts";
import { formatPsk, isIdentity, NEW_KEY_BYTES } from "../keys/psk_file.ts";

/**
 * `kemari keygen`: makes a file with one new key, which nobody but its owner can read.
 *
 * @throws {TransportError} There is such a file, or it cannot be written: nothing is left behind;
 *   {UsageError} no key can have this name.
 */
export function makeKeyFile(path: string, identity: string): void {
  if (!isIdentity(identity)) {
    throw new UsageError(`"${identity}" cannot name a key`, {
      hint: "1 to 128 bytes that can be printed, no colon, and no # at the beginning",
    });
  }
  const line = formatPsk({ identity, key: new Uint8Array(randomBytes(NEW_KEY_BYTES)) });
  let file: Deno.FsFile;
  try {
    file = Deno.openSync(path, { write: true, createNew: true, mode: 0o600 });
  } catch (cause) {
    const exists = cause instanceof Deno.errors.AlreadyExists;
    throw new TransportError(
      path,
      "write",
      exists ? "there is such a file: no key is ever overwritten" : "it cannot be made",
      { party: "user", cause, hint: exists ? "choose another name" : undefined },
    );
  }
  try {
    // A mask of the process's own may have taken rights away that its owner needs.
    Deno.chmodSync(path, 0o600);
    const bytes = new TextEncoder().encode(line);
    for (let at = 0; at < bytes.length;) at += file.writeSync(bytes.subarray(at));
    file.syncSync();
  } catch (cause) {
    Deno.removeSync(path);
    throw new TransportError(path, "write", "it cannot be written", { party: "user", cause });
  } finally {
    file.close();
  }
}
