/** The file system of a standby's RAM fills after a takeover (needs root: a tmpfs). */
import assert from "node:assert/strict";
import { BarePair } from "../../lab/testing/bare_pair.ts";
import { failover } from "../../lab/testing/protected_pair.ts";

const MIB = 2 ** 20;

async function mount(...args: string[]): Promise<void> {
  assert.ok((await new Deno.Command("mount", { args }).output()).success);
}

/** Writes a file until its file system is full. */
function fill(path: string): void {
  using file = Deno.openSync(path, { write: true, create: true });
  const chunk = new Uint8Array(4096);
  assert.throws(() => {
    for (;;) file.writeSync(chunk);
  }, /[Nn]o space/);
}

Deno.test({
  name: "e2e: a VM that has taken over goes on writing where the file system of its RAM is full",
  ignore: Deno.uid() !== 0,
  fn: async () => {
    await using pair = await BarePair.boot("11.1", {
      ...{ accelerator: "tcg", timer: "apic", hz: 100, every: 5, memoryMiB: 64 },
      // Nothing of the region is written before the takeover.
      ...{ regionKiB: 16 * 1024, pages: 0 },
    });
    const folder = `${pair.folder}/ram`;
    await Deno.mkdir(folder);
    await mount("-t", "tmpfs", "-o", `size=${96 * MIB}`, "none", folder);
    try {
      const standby = await pair.standby();
      await pair.recvWithStandby(standby.vm, "--ram-dir", folder);
      const protect = pair.protect("--sync-interval", "20");
      await pair.syncs(10);
      const { ram } = await pair.receiverStatus((status) => status.standby?.state === "ready");
      assert.equal(ram!.reserve, "full");
      assert.ok(ram!.reservedBytes > 64 * MIB, JSON.stringify(ram));
      await pair.primary.powerCut();
      await protect.ended();
      await failover(pair);
      await pair.assertTakenOver(standby);
      assert.equal((await pair.receiverStatus()).takeover?.mode, "warm");
      fill(`${folder}/ballast`);
      await standby.set({ pages: 64 });
      const { count } = await standby.status();
      // 4,096 pages at 64 a tick: all of the region, and more.
      await standby.counted(count + 150);
      const found = await standby.verify();
      assert.ok(found.ok, found.text);
    } finally {
      await new Deno.Command("umount", { args: ["--lazy", folder] }).output();
    }
  },
});
