/**
 * QEMU's gdb stub, as far as it lets a VM run: when a debugger detaches, the VM goes on, from whatever
 * run state it is in. `cont` is not so free.
 *
 * @see QEMU monitor/qmp-cmds.c, qmp_cont(); gdbstub/gdbstub.c, handle_detach(); hmp-commands.hx, gdbserver
 */
import type { QmpCommand } from "./codec.ts";

/** What a debugger says when it leaves: `D`, between `$` and the sum of its bytes. */
export const DETACH = "$D#44";

/** Where QEMU connects the stub to: a descriptor that it was given under a name, or a socket's path. */
export type StubAddress =
  | { readonly type: "fd"; readonly data: { readonly str: string } }
  | { readonly type: "unix"; readonly data: { readonly path: string } };

/** Connects a character device to whoever speaks to the stub. */
export function addStubChannel(id: string, addr: StubAddress): QmpCommand {
  const backend = { type: "socket", data: { addr, server: false } };
  return { execute: "chardev-add", arguments: { id, backend } };
}

/** Removes it where the stub has not taken it. */
export function removeStubChannel(id: string): QmpCommand {
  return { execute: "chardev-remove", arguments: { id } };
}

/** Starts the stub on a character device, in the place of any other stub: a debugger has attached. */
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
