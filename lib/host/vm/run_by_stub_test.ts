import assert from "node:assert/strict";
import { QemuError } from "../../errors.ts";
import type { QmpCommand } from "../../qmp/codec.ts";
import type { StubAddress } from "../../qmp/gdb_stub.ts";
import type { QmpClient } from "./qmp_client.ts";
import { FakeClock } from "../system/testing/fake_clock.ts";
import { releaseVm } from "./release_vm.ts";

const REFUSALS: Readonly<Record<string, string>> = {
  "colo": "COLO checkpoint in progress",
  "finish-migrate": "Migration is not finalized yet",
};

/**
 * A VM in a COLO that was cancelled and does not end, as QEMU 11.1 has it (measured): `cont` is refused
 * while it stands still, and a debugger that detaches lets it run. Its monitor takes no descriptors.
 */
class CancelledVm {
  readonly passesDescriptors = false;
  readonly told: string[] = [];
  /** Character devices: where each is connected to. */
  readonly #channels = new Map<string, Deno.Conn>();

  /**
   * @param leavesAfter How many times `cont` is refused before the VM runs by itself.
   * @param hasStub Whether its accelerator knows guest debugging.
   */
  constructor(
    public state: string,
    private leavesAfter = Infinity,
    private readonly hasStub = true,
    private readonly isColo = true,
  ) {}

  get channelCount(): number {
    return this.#channels.size;
  }

  async run({ execute, arguments: given }: QmpCommand): Promise<unknown> {
    if (execute === "query-migrate") return { status: "cancelling" };
    if (execute === "query-status") return { status: this.state };
    if (execute === "query-migrate-capabilities") {
      return [{ capability: "x-colo", state: this.isColo }];
    }
    const words = execute === "human-monitor-command" ? String(given!["command-line"]) : execute;
    this.told.push(words.replace(/kemari-[-0-9a-f]+/, "ID"));
    switch (execute) {
      case "cont":
        if (this.leavesAfter-- === 0) this.state = "running";
        if (!(this.state in REFUSALS)) return {};
        throw new QemuError("cont", "GenericError", REFUSALS[this.state]);
      case "x-colo-lost-heartbeat":
        throw new QemuError(execute, "GenericError", "VM is not in COLO mode");
      case "chardev-add":
        return await this.#connect(given as unknown as { id: string; backend: Backend });
      case "chardev-remove":
        if (!this.#channels.has(String(given!.id))) {
          throw new QemuError(execute, "GenericError", "Chardev not found");
        }
        return this.#forget(String(given!.id));
      case "human-monitor-command":
        return await this.#monitor(words);
      default:
        return {};
    }
  }

  async release(action: "continue" | "stop"): Promise<string> {
    return await releaseVm(this as unknown as QmpClient, action, false, new FakeClock());
  }

  async #connect({ id, backend }: { id: string; backend: Backend }): Promise<unknown> {
    const { addr } = backend.data;
    assert.equal(addr.type, "unix");
    const { path } = addr.data as { path: string };
    this.#channels.set(id, await Deno.connect({ transport: "unix", path }));
    return {};
  }

  /** Of refusals the human monitor says only words. */
  async #monitor(line: string): Promise<string> {
    if (line === "gdbserver none") {
      for (const id of this.#channels.keys()) if (this.hasStub) this.#forget(id);
      return "Disabled gdbserver\r\n";
    }
    if (!this.hasStub) {
      return "gdbstub: current accelerator doesn't support guest debugging\r\n";
    }
    const connection = this.#channels.get(line.replace("gdbserver chardev:", ""));
    assert.ok(connection, "the stub is on no channel");
    const buffer = new Uint8Array(100);
    const length = await connection.read(buffer);
    assert.equal(new TextDecoder().decode(buffer.subarray(0, length!)), "$D#44");
    this.state = "running";
    return "Waiting for gdb connection\r\n";
  }

  #forget(id: string): unknown {
    this.#channels.get(id)!.close();
    this.#channels.delete(id);
    return {};
  }
}

interface Backend {
  readonly data: { readonly addr: StubAddress };
}

Deno.test("a VM that cancelled COLO keeps in a checkpoint for ever is let run by QEMU's gdb stub", async () => {
  const vm = new CancelledVm("colo");
  assert.equal(await vm.release("continue"), "running");
  assert.deepEqual(vm.told, [
    "yank",
    "cont",
    "chardev-add",
    "gdbserver chardev:ID",
    "gdbserver none",
    "chardev-remove",
  ]);
  assert.equal(vm.channelCount, 0);
});

Deno.test("a VM that leaves its migration's end by itself is asked again, and needs no gdb stub", async () => {
  const vm = new CancelledVm("finish-migrate", 2);
  assert.equal(await vm.release("continue"), "running");
  assert.deepEqual(vm.told, ["yank", "cont", "cont", "cont"]);
});

Deno.test("a VM that cancelled COLO keeps at its beginning is let run by the gdb stub in the end", async () => {
  const vm = new CancelledVm("finish-migrate");
  assert.equal(await vm.release("continue"), "running");
  assert.ok(vm.told.includes("gdbserver chardev:ID"));
});

Deno.test("a VM whose disks a migration may have given away is not let run by the gdb stub", async () => {
  const vm = new CancelledVm("finish-migrate", Infinity, true, false);
  await assert.rejects(vm.release("continue"), /Migration is not finalized yet/);
  assert.equal(vm.state, "finish-migrate");
});

Deno.test("a VM in a cancelled COLO that is to stand still is not run for that", async () => {
  const vm = new CancelledVm("colo");
  assert.equal(await vm.release("stop"), "colo");
  assert.deepEqual(vm.told, ["yank", "stop"]);
});

Deno.test("where QEMU has no gdb stub either, the error says what is left to do, and nothing stays behind", async () => {
  const vm = new CancelledVm("colo", Infinity, false);
  await assert.rejects(vm.release("continue"), (error: QemuError) => {
    assert.equal(error.command, "cont");
    assert.match(
      error.message,
      /COLO checkpoint in progress.*stands still.*gdbserver.*system_reset/,
    );
    return true;
  });
  assert.equal(vm.state, "colo");
  assert.equal(vm.channelCount, 0);
});
