/** Room for a replica's files, on file systems that are made for it (needs root). */
import assert from "node:assert/strict";
import { TransportError } from "../../errors.ts";
import { checkpointBody, fullStream, page, zero } from "../../qemu/testing/synthetic_stream.ts";
import { fingerprint } from "../../replica/testing/loopback.ts";
import { Replica } from "../../replica/secondary/replica.ts";
import { SecondaryTaps } from "../../replica/events/secondary_taps.ts";
import type { FilePages } from "./file_pages.ts";
import { RamDir } from "./ram_dir.ts";
import { Reservation } from "./reservation.ts";

const isRoot = Deno.uid() === 0;
const MIB = 2 ** 20;

async function run(program: string, ...args: string[]): Promise<boolean> {
  return (await new Deno.Command(program, { args, stderr: "null" }).output()).success;
}

/** Runs in a file system of its own. */
async function mounted(options: readonly string[], body: (folder: string) => Promise<void>) {
  const folder = await Deno.makeTempDir({ prefix: "kemari-room-" });
  try {
    assert.ok(await run("mount", ...options, folder));
    await body(folder);
  } finally {
    await run("umount", "--lazy", folder);
    await Deno.remove(folder, { recursive: true });
  }
}

const tmpfs = (sizeBytes: number) => ["-t", "tmpfs", "-o", `size=${sizeBytes}`, "none"];

function sparse(path: string, lengthBytes: number) {
  using file = Deno.openSync(path, { create: true, write: true });
  file.truncateSync(lengthBytes);
  return { path, lengthBytes };
}

Deno.test({
  name: "what is reserved is there when everything else is full, and its content stays",
  ignore: !isRoot,
  fn: () =>
    mounted(tmpfs(12 * MIB), async (folder) => {
      const files = [sparse(`${folder}/a`, 6 * MIB), sparse(`${folder}/b`, 2 * MIB)];
      Deno.writeFileSync(files[0].path, new Uint8Array(6 * MIB).fill(7, 4096, 8192));
      const reservation = new Reservation(files);
      await reservation.done;
      assert.ok(reservation.isDone);
      assert.equal(reservation.bytes, 8 * MIB);
      assert.throws(
        () => Deno.writeFileSync(`${folder}/c`, new Uint8Array(5 * MIB)),
        /[Nn]o space/,
      );
      using file = Deno.openSync(files[1].path, { write: true });
      for (let i = 0; i < 2; i++) file.writeSync(new Uint8Array(MIB).fill(i + 1));
      assert.equal(Deno.readFileSync(files[0].path).indexOf(7), 4096);
      // What has its room is not asked for it again.
      const again = new Reservation(files);
      await again.done;
      assert.equal(again.bytes, 8 * MIB);
    }),
});

Deno.test({
  name: "two that find room for one each: one of them is told",
  ignore: !isRoot,
  fn: () =>
    mounted(tmpfs(12 * MIB), async (folder) => {
      const two = ["a", "b"].map((name) => new Reservation([sparse(`${folder}/${name}`, 8 * MIB)]));
      const ended = await Promise.allSettled(two.map(({ done }) => done));
      const failed = ended.filter(({ status }) => status === "rejected");
      assert.ok(failed.length >= 1, "both were given what only one can have");
      for (const end of failed) {
        const { reason } = end as PromiseRejectedResult;
        assert.ok(reason instanceof TransportError && reason.party === "replica");
        assert.match(reason.message, /no room for 8388608 bytes: no space left/);
      }
    }),
});

Deno.test({
  name: "a file system that cannot reserve is refused by full, and filled by hand for none",
  ignore: !isRoot,
  fn: () =>
    mounted(["-t", "ramfs", "none"], async (folder) => {
      const reservation = new Reservation([sparse(`${folder}/a`, MIB)]);
      await assert.rejects(
        reservation.done,
        /cannot reserve room for a guest's RAM: not supported/,
      );
      assert.equal(reservation.isDone, false);
      using dir = RamDir.open(`${folder}/none`, "none");
      const replica = new Replica(1e8, undefined, new SecondaryTaps(new Map(), new Set()), dir);
      const truth = new Replica(1e8);
      const full = fullStream(1);
      const changes = [checkpointBody(4, page(5, 4, "pc.ram"), page(2, 9, "rom"))];
      // Pages that become zeros, and are written again.
      changes.push(checkpointBody(5, zero(5, "pc.ram"), zero(2, "rom")));
      changes.push(checkpointBody(6, page(5, 8, "pc.ram")));
      for (const each of [replica, truth]) {
        each.begin({ full: true, based: false });
        each.receive(full, 0, full.length);
        each.commit(1);
        for (const body of changes) {
          each.begin({ full: false, based: false });
          each.receive(body, 0, body.length);
          each.commit(each.committed + 1);
        }
      }
      assert.equal(fingerprint(replica), fingerprint(truth));
      assert.equal(replica.memoryBytes, truth.memoryBytes);
    }),
});

Deno.test("a replica says what is reserved for it, the next one's room included", async () => {
  const path = Deno.makeTempDirSync({ prefix: "kemari-ram-", dir: "/dev/shm" });
  try {
    using dir = RamDir.open(path, "full");
    const replica = new Replica(1e8, undefined, new SecondaryTaps(new Map(), new Set()), dir);
    const full = fullStream(1);
    const bytes = 11 * 1024;
    assert.deepEqual(dir.status, { folder: path, reserve: "full", reservedBytes: 0 });
    for (let transaction = 1; transaction <= 2; transaction++) {
      replica.begin({ full: true, based: false });
      replica.receive(full, 0, full.length);
      await (replica.complete().store as FilePages).reserved();
      assert.equal(dir.status.reservedBytes, transaction * bytes);
      replica.commit(transaction);
      assert.equal(dir.status.reservedBytes, bytes);
    }
    // The next process finds it there.
    dir.close();
    using next = RamDir.open(path, "full");
    const found = next.recover();
    assert.ok(!("nothing" in found));
    const again = new Replica(1e8, undefined, new SecondaryTaps(new Map(), new Set()), next);
    again.adopt(found);
    await next.pages!.reserved();
    assert.equal(next.status.reservedBytes, bytes);
    assert.equal(fingerprint(again), fingerprint(replica));
  } finally {
    Deno.removeSync(path, { recursive: true });
  }
});
