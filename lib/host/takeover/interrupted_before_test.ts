/** An interruption that comes before a command has been started: it must not be, since nobody would end it. */
import assert from "node:assert/strict";
import { startVm } from "../../lab/vms/vm.ts";
import type { Replica } from "../../replica/secondary/replica.ts";
import { fence } from "./fence.ts";
import { writeToCommand } from "./write_replica.ts";

const EMPTY = { compose: () => [] } as unknown as Replica;

const STARTS: Readonly<Record<string, (mark: string, signal: AbortSignal) => Promise<unknown>>> = {
  "a fence": (mark, signal) => fence(`touch ${mark}`, 60_000, signal, () => {}, true),
  "a command that takes the VM": (mark, signal) =>
    writeToCommand(EMPTY, "--exec", `touch ${mark}; cat >/dev/null`, signal, () => {}, () => {}),
  "a QEMU": (mark, signal) =>
    startVm({ qemu: "/bin/sh", prefix: ["touch", mark], name: "none", signal }),
};

for (const [what, start] of Object.entries(STARTS)) {
  Deno.test(`${what} is not started by whoever is interrupted already`, async () => {
    const folder = await Deno.makeTempDir({ prefix: "kemari-interrupted-" });
    try {
      const interrupted = AbortSignal.abort(new Error("interrupted"));
      await assert.rejects(start(`${folder}/started`, interrupted), interrupted.reason);
      assert.deepEqual([...Deno.readDirSync(folder)], []);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });
}
