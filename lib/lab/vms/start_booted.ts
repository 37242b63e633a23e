/**
 * VMs that go on from one boot: a guest under TCG takes five seconds and more to boot, and half a
 * second to be restored.
 */
import { createHash } from "node:crypto";
import { KemariError } from "../../errors.ts";
import { QmpClient } from "../../host/vm/qmp_client.ts";
import { cacheDir, exists, shellQuote, withLock } from "../provision/cache_dir.ts";
import { saveVm } from "./save_vm.ts";
import { resumeArrived } from "./stopped_migration.ts";
import { startVm, type Vm, type VmOptions } from "./vm.ts";
import { never } from "../../host/system/never.ts";

/** What belongs to one boot, and not to the machine that goes on from it. */
type Boot = Omit<VmOptions, "incoming" | "stdin">;

/** How long a state is kept that nobody goes on from: a new kernel or QEMU leaves them behind. */
const KEPT_MS = 7 * 24 * 3600 * 1000;

/**
 * Starts a VM whose guest has booted and runs: its agent listens, and its console says nothing of
 * the boot. The first who asks for such a machine has it boot, and keeps its state in the cache
 * folder; whoever asks meanwhile waits. All that go on from one boot have the same memory, boot id
 * and random seeds.
 *
 * @param options Without anything that differs from one run to the next, such as paths of sockets;
 *   where the back ends of devices have such paths, `asBooted` says what to boot with instead.
 * @throws {KemariError} if the guest does not boot, or QEMU does not save or restore it.
 */
export async function startBooted(options: Boot, asBooted: Boot = options): Promise<Vm> {
  const path = `${cacheDir()}/booted-${await keyOf(asBooted)}.vm`;
  for (let isNew = false;; isNew = true) {
    if (!await exists(path)) {
      await withLock(`${path}.lock`, {}, async () => {
        if (await exists(path)) return;
        await removeUnused();
        await save(asBooted, path);
      });
    }
    await Deno.utime(path, new Date(), new Date()).catch(() => {});
    const incoming = `exec:cat ${shellQuote(path)}`;
    const vm = await startVm({ ...options, incoming });
    try {
      await resumeArrived(vm);
      return vm;
    } catch (error) {
      await vm.dispose();
      // One that was saved by another QEMU, or whose file was cut off.
      if (isNew || !(error instanceof KemariError)) throw error;
      await Deno.remove(path).catch(() => {});
    }
  }
}

async function save(options: Boot, path: string): Promise<void> {
  await using vm = await startVm({ ...options, name: "boot" });
  await vm.ready();
  await using qmp = await QmpClient.connect(vm.spareQmpPath);
  await saveVm(qmp, path, never);
}

/** Removes states that nobody has gone on from for long. */
async function removeUnused(): Promise<void> {
  for await (const { name } of Deno.readDir(cacheDir())) {
    if (!/^booted-[0-9a-f]+\.vm$/.test(name)) continue;
    const path = `${cacheDir()}/${name}`;
    const { mtime } = await Deno.stat(path).catch(() => ({ mtime: null }));
    if (mtime === null || Date.now() - mtime.getTime() < KEPT_MS) continue;
    await Deno.remove(path).catch(() => {});
  }
}

/** Tells apart what must not go on from the same state: the programs, the guest, the machine. */
async function keyOf({ qemu, guest, memoryMiB, machine, accelerator, append, args }: Boot) {
  const files = [qemu, guest?.kernel, guest?.initrd, guest?.firmware];
  const stats = await Promise.all(files.map(async (file) => {
    if (file === undefined) return null;
    const { size, mtime } = await Deno.stat(file);
    return [file, size, mtime?.getTime()];
  }));
  const parts = [stats, guest?.append, memoryMiB, machine, accelerator, append, args];
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, 16);
}
