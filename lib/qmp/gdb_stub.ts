/**
 * Letting a VM run by QEMU's gdb stub: when a debugger detaches, the VM goes on from any run state,
 * also from one in which `cont` is refused.
 *
 * @see QEMU monitor/qmp-cmds.c, qmp_cont(); gdbstub/gdbstub.c, handle_detach(); hmp-commands.hx,
 *   gdbserver
 */
import type { QmpCommand } from "./codec.ts";

/** A debugger's message to detach: `D`, between `$` and the checksum. */
export const DETACH = "$D#44";

/**
 * What QEMU connects the stub to: a descriptor that it was given under a name, or a socket's path.
 */
export type StubAddress =
  | { readonly type: "fd"; readonly data: { readonly str: string } }
  | { readonly type: "unix"; readonly data: { readonly path: string } };

/** Makes the character device over which a debugger speaks to the stub. */
export function addStubChannel(id: string, addr: StubAddress): QmpCommand {
  const backend = { type: "socket", data: { addr, server: false } };
  return { execute: "chardev-add", arguments: { id, backend } };
}

/** Removes the character device if the stub has not taken it. */
export function removeStubChannel(id: string): QmpCommand {
  return { execute: "chardev-remove", arguments: { id } };
}

/**
 * Starts the stub on a character device, replacing any other stub: a debugger has attached then.
 */
export function startStub(id: string): QmpCommand {
  return monitor(`gdbserver chardev:${id}`);
}

/** Ends the stub, and its character device with it. */
export function endStub(): QmpCommand {
  return monitor("gdbserver none");
}

function monitor(line: string): QmpCommand {
  return { execute: "human-monitor-command", arguments: { "command-line": line } };
}
