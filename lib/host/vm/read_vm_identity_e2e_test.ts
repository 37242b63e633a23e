/** What real QEMUs tell of their VMs. */
import assert from "node:assert/strict";
import { ensureQemu, type QemuSeries } from "../../lab/provision/qemu.ts";
import { compareVms, type VmIdentity } from "../../decisions/whose_replica.ts";
import { TransportError } from "../../errors.ts";
import { QmpClient } from "./qmp_client.ts";
import { readVmIdentity } from "./read_vm_identity.ts";
import { until } from "../../lab/program/until.ts";

const onProgress = (line: string) => console.error(line);

/** Asks a QEMU, twice, that is started for it. */
async function identityOf(
  version: QemuSeries,
  folder: string,
  args: readonly string[],
  vm?: string,
): Promise<VmIdentity> {
  const { program } = await ensureQemu(version, { onProgress });
  const qmp = `${folder}/qmp`;
  const base = "-S -nodefaults -machine q35 -accel tcg -display none -smp 2".split(" ");
  const child = new Deno.Command(program, {
    args: [...base, "-qmp", `unix:${qmp},server=on,wait=off`, ...args],
  }).spawn();
  const identities: VmIdentity[] = [];
  let hasEnded = false;
  child.status.then(() => hasEnded = true);
  try {
    await until(async () => {
      try {
        await using client = await QmpClient.connect(qmp);
        identities.push(await readVmIdentity(client, vm));
      } catch (error) {
        if (!(error instanceof TransportError)) throw error;
      }
      assert.ok(!hasEnded, `QEMU ${version} ${args.join(" ")} has ended`);
      return identities.length === 2;
    }, "QEMU to answer");
  } finally {
    if (!hasEnded) child.kill("SIGKILL");
    await child.status;
  }
  assert.deepEqual(identities[0], identities[1]);
  return identities[0];
}

for (const version of ["11.1", "10.0", "7.2", "5.2"] as const) {
  Deno.test(`e2e: QEMU ${version} tells VMs apart, named or not`, async () => {
    const folder = await Deno.makeTempDir({ prefix: "kemari-vm-" });
    try {
      await Deno.writeFile(`${folder}/a.img`, new Uint8Array(1 << 20));
      await Deno.writeFile(`${folder}/b.img`, new Uint8Array(1 << 20));
      const nic = (mac: string) => ["-device", `virtio-net-pci,romfile=,mac=52:54:00:00:00:${mac}`];
      const drive = (image: string) => [
        "-drive",
        `file=${folder}/${image}.img,format=raw,if=virtio`,
      ];
      const ask = (...args: string[]) => identityOf(version, folder, args);

      const uuid = ["-uuid", "01234567-89AB-CDEF-0123-456789ABCDEF"];
      const named = await ask("-name", "vm one", ...uuid);
      assert.equal(named.name, "vm one");
      assert.equal(named.uuid, "0123456789abcdef0123456789abcdef");
      const said = await identityOf(version, folder, ["-name", "vm one", ...uuid], "mine");
      assert.deepEqual([said.name, said.uuid], ["mine", undefined]);

      const one = await ask(...nic("01"), ...drive("a"));
      assert.deepEqual([one.name, one.uuid], [undefined, undefined]);
      const compare = async (...args: string[]) => {
        const { is, by } = compareVms(one, await ask(...args));
        return `${is} by ${by}`;
      };
      assert.equal(compareVms(one, { ...one, shape: undefined }).is, "same");
      // Started again, it looks the same: nothing proves that it is.
      assert.equal(await compare(...nic("01"), ...drive("a")), "unknown by shape");
      assert.equal(await compare(...nic("02"), ...drive("a")), "other by shape");
      assert.equal(await compare(...nic("01"), ...drive("b")), "other by shape");
      assert.equal(await compare(...nic("01"), ...drive("a"), "-m", "64"), "other by shape");
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });
}
