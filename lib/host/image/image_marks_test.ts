/** One image at both ends, or two: what the primary's mark shows the secondary. */
import assert from "node:assert/strict";
import { WireError } from "../../errors.ts";
import type { Hello } from "../../txn/hello.ts";
import { ImageMarks, lookForSameImages, type MarkedDisk } from "./image_marks.ts";
import { cString, libc } from "../system/libc.ts";

const isRoot = Deno.uid() === 0;
const HELLO: Hello = {
  version: 1,
  features: 0,
  session: new Uint8Array(16),
  heartbeatMs: 1,
  graceMs: 2,
  committed: 0,
  maxTransactionBytes: 0,
  software: "test",
};

const disk = (path: string, mode: MarkedDisk["mode"] = "replicated"): MarkedDisk => ({
  name: "d",
  path,
  mode,
});

async function placed(image: MarkedDisk, timeoutMs?: number): Promise<ImageMarks> {
  const marks = new ImageMarks([image], timeoutMs);
  await marks.placed;
  return marks;
}

/** What a secondary with `ours` makes of a primary with `theirs`. */
async function verdict(theirs: MarkedDisk, ours: MarkedDisk): Promise<"refused" | "accepted"> {
  const marks = await placed(theirs);
  try {
    (await lookForSameImages({ ...HELLO, fields: marks.fields }, [ours]))(0);
    return "accepted";
  } catch (error) {
    assert.ok(error instanceof WireError, `${error}`);
    assert.equal(error.fault, "same-image");
    assert.equal(error.exitCode, 3);
    assert.match(error.message, /disk d: .* is the primary's own image/);
    return "refused";
  } finally {
    await marks.remove();
  }
}

/** A folder with two images, and the first one under other names. */
async function withImages(
  folder: string,
  body: (names: { a: string; b: string; link: string; hard: string }) => Promise<void>,
): Promise<void> {
  const [a, b, link] = ["a.img", "b.img", "link"].map((name) => `${folder}/${name}`);
  await Deno.mkdir(`${folder}/other`);
  const hard = `${folder}/other/hard`;
  for (const path of [a, b]) await Deno.writeFile(path, new Uint8Array(1 << 20));
  await Deno.symlink(a, link);
  await Deno.link(a, hard);
  await body({ a, b, link, hard });
}

async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "kemari-marks-" });
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function attributeOf(path: string): Promise<string> {
  const value = new Uint8Array(64);
  const [name, attribute] = [cString(path), cString("user.kemari.mark")];
  const length = await libc().getxattr(name, attribute, value, 64n);
  return new TextDecoder().decode(value.subarray(0, Math.max(0, Number(length))));
}

const namesIn = (folder: string) =>
  [...Deno.readDirSync(folder)].map(({ name }) => name).toSorted();

Deno.test("the primary's image is known again by any name, and one beside it is not it", () =>
  inFolder((folder) =>
    withImages(folder, async ({ a, b, link, hard }) => {
      for (const name of [a, link, hard]) {
        assert.equal(await verdict(disk(a), disk(name)), "refused", name);
        assert.equal(await verdict(disk(name), disk(a)), "refused", name);
      }
      assert.equal(await verdict(disk(a), disk(b)), "accepted");
      assert.equal(await verdict(disk(a), disk(a, "shared")), "accepted");
      // Another disk's image is not what the session is about.
      assert.equal(await verdict({ ...disk(a), name: "e" }, disk(a)), "accepted");
      assert.equal(await verdict(disk(a), disk(`${folder}/none`)), "accepted");
    })
  ));

Deno.test("a mark is gone when the secondary has looked, and a killed primary's goes with the next", () =>
  inFolder((folder) =>
    withImages(folder, async ({ a, b }) => {
      const before = namesIn(folder);
      const killed = await placed(disk(a));
      const beside = await placed(disk(b));
      // A copy that was made meanwhile, attributes and all.
      const cp = await new Deno.Command("cp", { args: ["-a", a, `${folder}/copy`] }).output();
      assert.ok(cp.success);
      assert.notEqual(await attributeOf(`${folder}/copy`), "");
      assert.equal(namesIn(folder).length, before.length + 3);
      const next = await placed(disk(a));
      const copy = { ...HELLO, fields: next.fields };
      (await lookForSameImages(copy, [disk(`${folder}/copy`)]))(0);
      const judge = await lookForSameImages(copy, [disk(a)]);
      assert.throws(() => judge(0), /same-image/);
      // The killed one's file is gone, the other image's is not.
      assert.equal(namesIn(folder).length, before.length + 3);
      await next.remove();
      await beside.remove();
      assert.deepEqual(namesIn(folder), [...before, "copy"].toSorted());
      assert.equal(await attributeOf(a), "");
      await killed.remove();
    })
  ));

async function run(program: string, ...args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(program, { args }).output();
  assert.ok(success, `${program} ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
}

Deno.test({
  name: "storage that hangs keeps no session waiting, and has no mark when it comes back",
  ignore: !isRoot,
  fn: () =>
    inFolder(async (folder) => {
      const mounted = `${folder}/mounted`;
      await Deno.mkdir(mounted);
      await Deno.writeFile(`${folder}/fs`, new Uint8Array(16 << 20));
      await run("mkfs.ext4", "-q", `${folder}/fs`);
      await run("mount", "-o", "loop", `${folder}/fs`, mounted);
      try {
        await withImages(mounted, async ({ a }) => {
          const before = namesIn(mounted);
          await run("fsfreeze", "-f", mounted);
          let marks: ImageMarks;
          try {
            marks = await placed(disk(a), 100);
            assert.deepEqual(marks.fields, []);
            await marks.remove();
          } finally {
            await run("fsfreeze", "-u", mounted);
          }
          await marks.settled;
          assert.equal(await attributeOf(a), "");
          assert.deepEqual(namesIn(mounted), before);
        });
      } finally {
        await run("umount", mounted);
      }
    }),
});

Deno.test({
  name:
    "a file system that shows no attributes shows the file beside the image, and the other way round",
  ignore: !isRoot,
  fn: () =>
    inFolder(async (folder) => {
      const ramfs = `${folder}/ramfs`;
      const bound = `${folder}/bound`;
      for (const path of [ramfs, bound]) await Deno.mkdir(path);
      await run("mount", "-t", "ramfs", "none", ramfs);
      try {
        await withImages(ramfs, async ({ a, b, link }) => {
          assert.equal(await verdict(disk(a), disk(link)), "refused");
          assert.equal(await verdict(disk(a), disk(b)), "accepted");
          assert.equal(await attributeOf(a), "");
          // Under another path, as another host would see it.
          await run("mount", "--bind", ramfs, bound);
          assert.equal(await verdict(disk(a), disk(`${bound}/a.img`)), "refused");
          assert.equal(await verdict(disk(a), disk(`${bound}/b.img`)), "accepted");
        });
      } finally {
        await new Deno.Command("umount", { args: [bound] }).output();
        await run("umount", ramfs);
      }
      await Deno.mkdir(`${folder}/ro`);
      await withImages(`${folder}/ro`, async ({ a, b, hard }) => {
        const ro = `${folder}/ro`;
        await run("mount", "--bind", `${folder}/ro`, bound);
        try {
          // A folder that takes no file, as another process' sandbox may have it.
          await run("chattr", "+i", ro);
          assert.equal(await verdict(disk(a), disk(`${bound}/a.img`)), "refused");
          assert.equal(await verdict(disk(a), disk(hard)), "refused");
          assert.equal(await verdict(disk(a), disk(b)), "accepted");
          assert.deepEqual(namesIn(ro), ["a.img", "b.img", "link", "other"]);
        } finally {
          await run("chattr", "-i", ro);
          await run("umount", bound);
        }
      });
    }),
});
