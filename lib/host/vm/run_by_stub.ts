/** Has QEMU's gdb stub let a VM run where QEMU refuses `cont`. */
import { QemuError } from "../../errors.ts";
import {
  addStubChannel,
  DETACH,
  endStub,
  removeStubChannel,
  startStub,
  type StubAddress,
} from "../../qmp/gdb_stub.ts";
import { giveDescriptor, takeBackDescriptor } from "../../qmp/migration.ts";
import { openSocketPair } from "../system/descriptor_passing.ts";
import { libc } from "../system/libc.ts";
import type { QmpClient } from "./qmp_client.ts";

/** The name under which QEMU is given its end of the connection. */
const DESCRIPTOR = "kemari-gdb";
const DETACH_BYTES = new TextEncoder().encode(DETACH);

/** A debugger that detaches at once, and how QEMU reaches it. */
interface LeavingDebugger {
  readonly address: StubAddress;
  close(): Promise<void>;
}

/**
 * Attaches a debugger, which detaches: then QEMU lets the VM run. This ends an operator's own stub
 * (`-gdb`).
 *
 * @param runs Resolves when the VM runs, and rejects when it should have run by then.
 * @throws {QemuError | TransportError} if QEMU refuses or cannot be reached, and what `runs` throws.
 */
export async function runByStub(client: QmpClient, runs: () => Promise<void>): Promise<void> {
  // An earlier process that was killed may have left its connection behind.
  const id = `kemari-${crypto.randomUUID()}`;
  const leaving = await giveDebugger(client) ?? await listenAsDebugger();
  try {
    await client.run(addStubChannel(id, leaving.address));
    try {
      await client.run(startStub(id));
      await runs();
    } finally {
      await client.run(endStub()).catch(() => {});
      await client.run(removeStubChannel(id)).catch(() => {});
    }
  } finally {
    await leaving.close();
  }
}

/**
 * Hands QEMU a connection into which the debugger's message is written already: QEMU's user and
 * sandbox do not matter then.
 *
 * @returns `undefined` where this monitor takes no descriptors.
 */
async function giveDebugger(client: QmpClient): Promise<LeavingDebugger | undefined> {
  if (!client.passesDescriptors) return undefined;
  const { ours, theirs } = openSocketPair("gdb");
  try {
    libc().write(ours, DETACH_BYTES, BigInt(DETACH_BYTES.length));
    await client.run(giveDescriptor(DESCRIPTOR), { fd: theirs });
  } catch (error) {
    libc().close(ours);
    if (error instanceof QemuError) return undefined;
    throw error;
  } finally {
    libc().close(theirs);
  }
  return {
    address: { type: "fd", data: { str: DESCRIPTOR } },
    async close() {
      libc().close(ours);
      // If QEMU has not used the descriptor.
      await client.run(takeBackDescriptor(DESCRIPTOR)).catch(() => {});
    },
  };
}

/**
 * Lets QEMU connect by itself, whichever user it runs as. Another process that connects learns
 * nothing and reaches nothing.
 */
async function listenAsDebugger(): Promise<LeavingDebugger> {
  const folder = await Deno.makeTempDir({ prefix: "kemari-gdb-" });
  const path = `${folder}/stub`;
  const listener = Deno.listen({ transport: "unix", path });
  await Deno.chmod(folder, 0o711);
  await Deno.chmod(path, 0o666);
  const connections: Deno.Conn[] = [];
  const serving = (async () => {
    for await (const connection of listener) {
      connections.push(connection);
      await connection.write(DETACH_BYTES).catch(() => {});
    }
  })();
  return {
    address: { type: "unix", data: { path } },
    async close() {
      listener.close();
      await serving;
      for (const connection of connections) connection.close();
      await Deno.remove(folder, { recursive: true }).catch(() => {});
    },
  };
}
