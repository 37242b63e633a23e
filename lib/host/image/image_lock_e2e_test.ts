/** Images that QEMU and its tools have open, or another kemari; and whom kemari keeps from them. */
import assert from "node:assert/strict";
import { ensureQemu, type QemuInstall } from "../../lab/provision/qemu.ts";
import { KemariProcess } from "../../lab/program/kemari_process.ts";
import { TransportError } from "../../errors.ts";
import type { ImageUse } from "./claim_image.ts";
import { ImageFile } from "./image_file.ts";
import { QmpClient } from "../vm/qmp_client.ts";
import { Reactor } from "../system/reactor.ts";
import { until } from "../../lab/program/until.ts";

const onProgress = (line: string) => console.error(line);
const SIZE = 8 << 20;
const isRoot = Deno.uid() === 0;

const reactor = new Reactor();
const open = (path: string, use?: ImageUse) => ImageFile.open(path, reactor, use);

async function withImage(act: (path: string, folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "kemari-lock-" });
  try {
    const path = `${folder}/disk.img`;
    await Deno.writeFile(path, new Uint8Array(0));
    await Deno.truncate(path, SIZE);
    await act(path, folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function run(program: string, ...args: string[]): Promise<{ code: number; said: string }> {
  const { code, stdout, stderr } = await new Deno.Command(program, { args }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, said: text(stdout) + text(stderr) };
}

async function mustRun(program: string, ...args: string[]): Promise<string> {
  const { code, said } = await run(program, ...args);
  assert.equal(code, 0, `${program} ${args.join(" ")}: ${said}`);
  return said.trim();
}

const diskOf = (path: string, mode: string) =>
  `file.driver=file,file.filename=${path},driver=raw,if=none,id=d` + (mode && `,${mode}`);
const machine = (path: string, mode = "") => [
  ..."-S -nodefaults -machine q35 -accel tcg -display none".split(" "),
  ..."-device virtio-blk-pci,drive=d".split(" "),
  "-drive",
  diskOf(path, mode),
];

/** Starts a QEMU with the image as its disk, and has it while `act` runs. */
async function withQemu(
  { program }: QemuInstall,
  path: string,
  folder: string,
  act: (pid: number) => void,
): Promise<void> {
  const qmp = `${folder}/qmp`;
  const child = new Deno.Command(program, {
    args: [...machine(path), "-qmp", `unix:${qmp},server=on,wait=off`],
  }).spawn();
  try {
    // It answers once its disks are open.
    await until(async () => {
      try {
        await using client = await QmpClient.connect(qmp);
        return (await client.execute("query-block") as unknown[]).length > 0;
      } catch (error) {
        if (error instanceof TransportError) return false;
        throw error;
      }
    }, "QEMU to open its disk");
    act(child.pid);
  } finally {
    child.kill("SIGKILL");
    await child.status;
  }
}

for (const version of ["11.1", "5.2"] as const) {
  Deno.test(`e2e: an image that kemari serves is not opened by QEMU ${version} and its tools`, () =>
    withImage(async (path, folder) => {
      const qemu = await ensureQemu(version, { onProgress });
      const img = qemu.qemuImg!;
      const io = `${qemu.prefix}/qemu-io`;
      const IN_USE = /Failed to get (shared )?"(write|resize)" lock/;
      for (const isShared of [false, true]) {
        {
          using _image = open(path, { isShared });
          const CONVERT: [string, string[]] = [
            img,
            ["convert", "-f", "raw", "-O", "raw", path, `${folder}/copy`],
          ];
          const attempts: [string, string[]][] = [
            [qemu.program, machine(path)],
            [qemu.program, machine(path, "readonly=on")],
            [io, ["-f", "raw", "-c", "write 0 512", path]],
            [img, ["resize", "-f", "raw", path, "+1M"]],
            // 5.2 reads a raw image that is written, a QEMU's own too.
            ...(version === "5.2" ? [] : [CONVERT]),
          ];
          for (const [program, args] of attempts) {
            const { code, said } = await run(program, ...args);
            assert.notEqual(code, 0, `${program} ${args.join(" ")}`);
            assert.match(said, IN_USE, `${program} ${args.join(" ")}`);
          }
          // As with QEMU's own disks: to look at its size harms nobody.
          await mustRun(img, "info", "-f", "raw", path);
        }
        await mustRun(io, "-f", "raw", "-c", "write -P 7 0 512", path);
      }
    }));

  Deno.test(`e2e: an image that QEMU ${version} has is not served, and its holder is named`, () =>
    withImage(async (path, folder) => {
      const qemu = await ensureQemu(version, { onProgress });
      await withQemu(qemu, path, folder, (pid) => {
        for (const isShared of [false, true]) {
          assert.throws(() => open(path, { isShared }), (error) => {
            assert.ok(error instanceof TransportError);
            assert.match(error.message, new RegExp(`in use: .*process ${pid} \\(`));
            return true;
          });
        }
      });
      open(path).close();
    }));

  Deno.test(`e2e: what QEMU ${version} makes in another format is refused by its name`, () =>
    withImage(async (_, folder) => {
      const { qemuImg } = await ensureQemu(version, { onProgress });
      const formats = ["qcow2", "vmdk", "vdi", "vhdx", "qed", "vpc"];
      // Debian's 5.2 was built without.
      if (version !== "5.2") formats.push("parallels");
      for (const format of formats) {
        for (const more of format === "vpc" ? [[], ["-o", "subformat=fixed"]] : [[]]) {
          const path = `${folder}/${format}`;
          await mustRun(qemuImg!, "create", "-f", format, ...more, path, "8M");
          assert.throws(() => open(path), new RegExp(`in format ${format}:`), format);
          open(path, { format: "raw" }).close();
          await Deno.remove(path);
        }
      }
      const luks = `${folder}/luks`;
      const secret = ["--object", "secret,id=s,data=x", "-o", "key-secret=s,iter-time=10"];
      await mustRun(qemuImg!, "create", "-f", "luks", ...secret, luks, "1M");
      assert.throws(() => open(luks), /in format luks:/);
    }));
}

Deno.test("e2e: a second kemari does not get an image before the first has ended, or was killed", () =>
  withImage(async (path, folder) => {
    const recv = (name: string) =>
      new KemariProcess(
        ["recv", `unix:${folder}/${name}`, "--disk", `d=${path},unix:${folder}/${name}.nbd`],
        { stdout: { path: "/dev/null" } },
      );
    for (const [name, signal] of [["a", "SIGTERM"], ["b", "SIGKILL"]] as const) {
      await using first = recv(name);
      await first.listening();
      {
        await using second = recv("other");
        const { code, stderr } = await second.ended();
        assert.equal(code, 4);
        assert.match(stderr, /disk\.img: the image is in use: another process has it locked/);
        assert.match(stderr, new RegExp(`process ${first.pid}`));
      }
      first.signal(signal);
      await first.ended();
    }
    await using last = recv("last");
    await last.listening();
  }));

Deno.test("e2e: a qcow2 image given to a command is refused, and left as it is", () =>
  withImage(async (_, folder) => {
    const { qemuImg } = await ensureQemu("11.1", { onProgress });
    const path = `${folder}/disk.qcow2`;
    await mustRun(qemuImg!, "create", "-f", "qcow2", path, "8M");
    const before = await Deno.readFile(path);
    const disk = ["--disk", `d=${path},unix:${folder}/nbd`];
    const commands = [
      ["recv", `unix:${folder}/s`, ...disk],
      ["protect", `unix:${folder}/s`, "--qmp", `${folder}/qmp`, ...disk],
      ["send", `unix:${folder}/s`, ...disk],
    ];
    for (const command of commands) {
      await using kemari = new KemariProcess(command, { stdout: { path: "/dev/null" } });
      const { code, stderr } = await kemari.ended();
      assert.equal(code, 4, stderr);
      assert.match(stderr, /disk\.qcow2: the image is in format qcow2/);
      assert.match(stderr, /hint: .*format=raw/);
    }
    assert.deepEqual(await Deno.readFile(path), before);
  }));

Deno.test({
  name: "e2e: a block device: locked, claimed, and refused where it or its file is used otherwise",
  ignore: !isRoot,
  fn: () =>
    withImage(async (path, folder) => {
      const { prefix } = await ensureQemu("11.1", { onProgress });
      await mustRun("mkfs.ext4", "-q", path);
      const device = await mustRun("losetup", "--find", "--show", path);
      const mounted = `${folder}/mounted`;
      await Deno.mkdir(mounted);
      try {
        assert.throws(() => open(path), new RegExp(`attached to ${device}`));
        for (const isShared of [false, true]) {
          const image = open(device, { isShared });
          assert.throws(() => open(device), /in use/);
          const io = await run(`${prefix}/qemu-io`, "-f", "raw", "-c", "write 0 512", device);
          assert.match(io.said, /lock/);
          if (!isShared) assert.notEqual((await run("mount", device, mounted)).code, 0);
          image.close();
          await mustRun("mount", device, mounted);
          assert.throws(() => open(device, { isShared }), /is mounted, or part of/);
          await mustRun("umount", mounted);
        }
        {
          using _first = open(device, { isShared: true });
          using _second = open(device, { isShared: true });
        }
      } finally {
        await run("umount", mounted);
        await mustRun("losetup", "-d", device);
      }
      open(path).close();
    }),
});
