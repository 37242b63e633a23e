/** The guest on a real QEMU. */

import assert from "node:assert/strict";
import { QemuError } from "../../errors.ts";
import { QmpClient } from "../../host/vm/qmp_client.ts";
import { ensureGuest } from "./guest.ts";
import { ensureQemu } from "../provision/qemu.ts";
import { migrateStopped, resumeArrived } from "../vms/stopped_migration.ts";
import { startVm, type VmOptions } from "../vms/vm.ts";
import { until } from "../program/until.ts";

const onProgress = (line: string) => console.error(line);

async function guestOptions(version: "11.1" | "7.2"): Promise<Omit<VmOptions, "name">> {
  const qemu = await ensureQemu(version, { onProgress });
  const guest = await ensureGuest({ onProgress });
  return { qemu: qemu.program, guest, append: "kemari.count=1 kemari.fill=8" };
}

Deno.test("e2e: the guest boots, finds its devices and runs commands", async () => {
  await using vm = await startVm({
    ...await guestOptions("11.1"),
    name: "guest",
    args: [
      "-device",
      "virtio-net-pci,romfile=",
      "-blockdev",
      "driver=null-co,node-name=disk,size=16777216,read-zeroes=on",
      "-device",
      "virtio-blk-pci,drive=disk",
    ],
  });
  await vm.ready();
  assert.deepEqual(await vm.run("echo it\\'s; echo two >&2; exit 7"), {
    code: 7,
    output: "it's\ntwo\n",
  });
  assert.equal((await vm.run("sha256sum -c /mem/fill.sha256")).code, 0);
  const { output } = await vm.run(
    "ls /sys/class/net /sys/block; head -c 20000 /dev/zero | tr '\\0' x",
  );
  assert.match(output, /eth0/);
  assert.match(output, /vda/);
  assert.ok(output.endsWith("x".repeat(20_000)));
  await vm.console.waitFor(/^count 3$/);
  assert.ok(Number((await vm.run("cat /mem/count")).output) >= 3);
});

for (const version of ["11.1", "7.2"] as const) {
  Deno.test(`e2e: the guest's agent and counter survive a migration, ${version}`, async () => {
    const options = await guestOptions(version);
    await using source = await startVm({ ...options, name: "source" });
    await source.ready();
    await source.console.waitFor(/^count 5$/);
    const socket = `${source.folder}/migration`;
    await using target = await startVm({ ...options, name: "target", incoming: `unix:${socket}` });
    await using qmp = await QmpClient.connect(source.qmpPath);
    await qmp.execute("migrate-set-parameters", { "max-bandwidth": 10_000_000_000 });
    // A command that is under way on the source ends on the target, whose host never sent it.
    const cut = source.run("sleep 600; echo never");
    cut.catch(() => {});
    await migrateStopped(qmp, `unix:${socket}`);
    await resumeArrived(target);
    const first = await target.console.waitFor(/count \d+$/);
    const last = source.console.lines.findLast((line) => /^count \d+$/.test(line.text))!;
    await source.kill9();
    await assert.rejects(cut);
    const number = (text: string) => Number(/count (\d+)$/.exec(text)![1]);
    assert.ok(number(first.text) <= number(last.text) + 2);
    await target.console.waitFor((line) =>
      line.text.startsWith("count ") && number(line.text) > number(last.text) + 3
    );
  });
}

Deno.test("e2e: a QEMU that refuses its arguments is reported with its own words", async () => {
  const { qemu } = await guestOptions("11.1");
  await assert.rejects(
    startVm({ qemu, name: "wrong", args: ["-device", "no-such-device"] }),
    (error) => error instanceof QemuError && error.message.includes("no-such-device"),
  );
});

Deno.test("e2e: a disposed VM leaves no process and no folder", async () => {
  const { qemu } = await guestOptions("11.1");
  const vm = await startVm({ qemu, name: "gone", incoming: "exec:sleep 617" });
  // QEMU has greeted; its command's shell may not have become `sleep` yet.
  await until(async () => (await pidsOf(/^sleep 617 /)).length === 1, "its command to run");
  await vm.dispose();
  await vm.dispose();
  assert.throws(() => Deno.kill(vm.pid, "SIGKILL"));
  assert.deepEqual(await pidsOf(/^sleep 617 /), []);

  assert.throws(() => Deno.statSync(vm.folder), Deno.errors.NotFound);
});

Deno.test("e2e: SIGTERM to whoever started a VM leaves no process and no folder", async () => {
  const { qemu } = await guestOptions("11.1");
  const module = JSON.stringify(new URL("../vms/vm.ts", import.meta.url).href);
  const owner = new Deno.Command(Deno.execPath(), {
    args: [
      "eval",
      `import { startVm } from ${module};
       const vm = await startVm({ qemu: ${JSON.stringify(qemu)}, name: "orphan" });
       console.log(vm.folder);
       await vm.status;`,
    ],
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const reader = owner.stdout.getReader();
  const folder = new TextDecoder().decode((await reader.read()).value).trim();
  assert.ok(Deno.statSync(folder).isDirectory);
  owner.kill("SIGTERM");
  assert.equal((await owner.status).signal, "SIGTERM");
  await reader.cancel();
  assert.throws(() => Deno.statSync(folder), Deno.errors.NotFound);
  assert.deepEqual(await pidsOf(new RegExp(`${folder}/qmp`)), []);
});

/** Processes, zombies aside, whose command line matches; a space ends each word. */
async function pidsOf(commandLine: RegExp): Promise<number[]> {
  const pids: number[] = [];
  for await (const entry of Deno.readDir("/proc")) {
    if (!/^\d+$/.test(entry.name)) continue;
    const words = await Deno.readTextFile(`/proc/${entry.name}/cmdline`).catch(() => "");
    if (commandLine.test(words.replaceAll("\0", " "))) pids.push(Number(entry.name));
  }
  return pids;
}
