import { TransportError } from "../../errors.ts";
import { ERRNO } from "../system/linux.ts";
import type { QmpAddress } from "./qmp_address.ts";

/** Why there is no connection to a QEMU's monitor, and what to do about it. */
export function connectFailure(address: QmpAddress, cause: unknown): TransportError {
  const number = cause instanceof TransportError ? cause.cause : undefined;
  const refused = cause instanceof Deno.errors.ConnectionRefused || number === ERRNO.ECONNREFUSED;
  const fail = (message: string, hint: string) =>
    new TransportError(address.text, "connect", message, { party: "qemu", hint, cause });
  if (address.kind === "tcp") {
    const start = `start QEMU with -qmp tcp:${
      address.text.replace(/^tcp:/, "")
    },server=on,wait=off`;
    if (refused) return fail("nothing listens at this address", start);
    return fail(`cannot connect: ${reasonOf(cause)}`, start);
  }
  const start = `start QEMU with -qmp unix:${address.path},server=on,wait=off`;
  if (cause instanceof Deno.errors.NotFound || number === ERRNO.ENOENT) {
    return fail("there is no such socket", start);
  }
  if (refused) {
    return fail(
      "nothing listens on this socket",
      "its QEMU has ended; start it again, or name the socket of the one that runs",
    );
  }
  if (cause instanceof Deno.errors.PermissionDenied || number === ERRNO.EACCES) {
    return fail(
      "this user may not use the socket",
      "run kemari as the user that runs QEMU, or as root",
    );
  }
  return fail(`cannot connect: ${reasonOf(cause)}`, start);
}

function reasonOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
