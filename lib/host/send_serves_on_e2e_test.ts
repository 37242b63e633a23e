/** `kemari send` behind its secondary's end: whoever uses the VM's disks keeps them. */
import assert from "node:assert/strict";
import { KemariProcess } from "../lab/program/kemari_process.ts";
import { until } from "../lab/program/until.ts";
import { BLOCK, NbdWriter } from "./disk/testing/nbd_writer.ts";
import { delay } from "./system/delay.ts";
import { FakeMonitor } from "./vm/testing/fake_monitor.ts";

/** Some ticks of a link, each of which used to find the secondary's end anew. */
const TICKS_MS = 500;
const IMAGE_BYTES = 1 << 20;

/** Waits for a word of the process that serves on: the one that QEMU knows may have ended before it. */
function hears(send: KemariProcess, pattern: RegExp): Promise<void> {
  return until(() => pattern.test(send.stderr), `${pattern} on stderr`);
}

for (const hasMonitor of [false, true]) {
  const how = hasMonitor ? "in the first pass" : "without a monitor";
  Deno.test(`e2e: kemari send serves its disks on when its secondary is lost, ${how}`, async () => {
    const folder = await Deno.makeTempDir({ prefix: "kemari-serves-" });
    try {
      await Deno.writeFile(`${folder}/image`, new Uint8Array(IMAGE_BYTES));
      await using recv = new KemariProcess(["recv", "127.0.0.1:0", "--exec", "cat >/dev/null"]);
      const address = await recv.listening();
      await using monitor = hasMonitor ? FakeMonitor.open(`${folder}/qmp`) : undefined;
      const disk = `d=${folder}/image,unix:${folder}/disk`;
      const qmp = monitor === undefined ? [] : ["--qmp", monitor.path];
      await using send = new KemariProcess(["send", address, "--disk", disk, ...qmp], {
        stdin: "piped",
      });
      await recv.waitFor(/connected/);
      const client = await NbdWriter.connect(`${folder}/disk`, "d");
      try {
        recv.signal("SIGKILL");
        await hears(send, /serving the taps on, unprotected/);
        await delay(TICKS_MS);
        await client.write(3);
        await until(() => client.answered === 3, "the disk's answers");
      } finally {
        client.close();
      }
      const { code, stderr } = await send.ended();
      assert.equal(code, 4, stderr);
      assert.deepEqual((await Deno.readFile(`${folder}/image`))[2 * BLOCK], 3);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });
}
