/** One image at both ends, as two hosts have it over shared storage: here by two loop devices. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { BarePair } from "../../lab/testing/bare_pair.ts";
import { judgeImages, SEEN } from "../../decisions/same_image.ts";
import { placeOf } from "./image_place.ts";

const isRoot = Deno.uid() === 0;
const SIZE = 8 << 20;

async function run(program: string, ...args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(program, { args }).output();
  assert.ok(success, `${program} ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout).trim();
}

/** Attaches a file as a block device for as long as the scope lasts. */
async function loop(path: string, ...options: string[]) {
  const device = await run("losetup", "--find", "--show", ...options, path);
  return { device, [Symbol.asyncDispose]: async () => void await run("losetup", "-d", device) };
}

async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "kemari-same-" });
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Without the difference, which would be of megabytes. */
const isSame = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0;

/** A pattern, so that a write shows. */
const content = () => new Uint8Array(SIZE).map((_, i) => 1 + i % 251);

Deno.test({
  name: "e2e: the primary's own image as the secondary's copy is refused, and nothing is written",
  ignore: !isRoot,
  fn: () =>
    inFolder(async (folder) => {
      const image = `${folder}/shared.img`;
      const before = content();
      await Deno.writeFile(image, before);
      await using theirs = await loop(image);
      await using ours = await loop(image);
      const machine = { accelerator: "tcg", timer: "apic", pages: 2 } as const;
      await using pair = await BarePair.boot("11.1", machine);
      const disk = (device: string, end: string, ...more: string[]) => [
        "--disk",
        [`d=${device}`, `unix:${folder}/${end}.nbd`, ...more].join(","),
      ];
      const recv = await pair.recv(...disk(ours.device, "recv"));
      await pair.secondary();
      const protect = pair.protect(...disk(theirs.device, "protect"));
      const { code, stderr } = await protect.ended();
      assert.equal(code, 3, stderr);
      assert.match(
        stderr,
        /refused the connection: .*disk d: \/dev\/loop\d+ here is the primary's/,
      );
      assert.match(stderr, /hint: give each side an image of its own/);
      await recv.waitFor(/a sender was refused: .*same-image/);
      await pair.assertRunning(pair.primary);
      assert.equal((await pair.receiverStatus(() => true)).lastCommitted, 0);
      recv.signal("SIGTERM");
      await recv.ended();
      assert.ok(isSame(await Deno.readFile(image), before), "something was written");
      // No mark is left behind.
      assert.deepEqual([...Deno.readDirSync(folder)].map(({ name }) => name), ["shared.img"]);

      // Two images in one folder are what a rehearsal on one host has.
      const copy = `${folder}/copy.img`;
      await Deno.writeFile(copy, new Uint8Array(SIZE));
      const other = await pair.recv(...disk(copy, "other"));
      await pair.secondary();
      const again = pair.protect(...disk(theirs.device, "again"), "--sync-interval", "20");
      await pair.syncs(2);
      await pair.receiverStatus(({ lastCommitted, incompleteDisks }) =>
        lastCommitted > 1 && incompleteDisks.length === 0
      );
      again.signal("SIGINT");
      await again.ended();
      other.signal("SIGTERM");
      await other.ended();
      assert.ok(isSame(await Deno.readFile(copy), before), "not copied");
    }),
});

Deno.test({
  name: "e2e: where a block device is, down to the file that stores it",
  ignore: !isRoot,
  fn: () =>
    inFolder(async (folder) => {
      const image = `${folder}/disk.img`;
      await Deno.writeFile(image, new Uint8Array(SIZE));
      const files: string[] = [];
      const place = (path: string) =>
        placeOf(path, Deno.statSync(path), (file) => {
          files.push(file);
          return SEEN;
        });
      assert.equal(place(image), "@");
      await using whole = await loop(image);
      assert.equal(place(whole.device), "@");
      await using later = await loop(image, "--offset", "65536");
      assert.equal(place(later.device), "loop 65536 0 of @");
      assert.deepEqual(new Set(files), new Set([image]));
      for (const [number, start] of [["1", "2048"], ["2", "4096"]]) {
        await run("addpart", whole.device, number, start, "2048");
      }
      const [one, two] = [1, 2].map((number) => place(`${whole.device}p${number}`));
      // They would outlive the file's being attached.
      for (const number of ["1", "2"]) await run("delpart", whole.device, number);
      assert.equal(one, "part 2048 2048 of @");
      assert.equal(two, "part 4096 2048 of @");
      assert.equal(judgeImages(one, two), "apart");
      assert.equal(judgeImages(one, "@"), "same");
    }),
});
