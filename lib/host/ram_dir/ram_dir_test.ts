import assert from "node:assert/strict";
import { TransportError } from "../../errors.ts";
import {
  checkpointBody,
  concat,
  configuration,
  deviceState,
  fullStream,
  HEADER,
  memSize,
  page,
  PAGE_BYTES,
  ramSection,
  VMDESC,
  zero,
} from "../../qemu/testing/synthetic_stream.ts";
import { fingerprint, Loopback } from "../../replica/testing/loopback.ts";
import { Replica } from "../../replica/secondary/replica.ts";
import { SecondaryTaps } from "../../replica/events/secondary_taps.ts";
import { Secondary } from "../../replica/secondary/secondary.ts";
import { testStore } from "../../lab/testing/store_conformance.ts";
import { RamDir } from "./ram_dir.ts";
import { commitNext } from "./testing/ram_dir_writer.ts";
import { delay } from "../system/delay.ts";

for (const reserve of ["none", "full"] as const) {
  testStore({
    name: reserve === "none" ? "in files" : "in files with their room",
    open: () =>
      RamDir.open(Deno.makeTempDirSync({ prefix: "kemari-ram-", dir: "/dev/shm" }), reserve),
    close: (store) => {
      const dir = store as RamDir;
      dir.close();
      Deno.removeSync(dir.path, { recursive: true });
    },
    cutEvery: reserve === "none" ? 23 : 97,
  });
}

async function inFolder(body: (path: string) => void | Promise<void>, parent = "/dev/shm") {
  const path = Deno.makeTempDirSync({ prefix: "kemari-ram-", dir: parent });
  try {
    await body(path);
  } finally {
    Deno.removeSync(path, { recursive: true });
  }
}

function replicaIn(dir: RamDir): Replica {
  return new Replica(1e8, undefined, new SecondaryTaps(new Map(), new Set()), dir);
}

function apply(replica: Replica, full: boolean, bytes: Uint8Array): void {
  replica.begin({ full, based: false });
  replica.receive(bytes, 0, bytes.length);
  replica.commit(replica.committed + 1);
}

/** A replica as another process would find it; nothing if there is none. */
function reopened(path: string): string {
  using dir = RamDir.open(path);
  const found = dir.recover();
  if ("nothing" in found) return found.nothing;
  const replica = replicaIn(dir);
  replica.adopt(found);
  return fingerprint(replica);
}

Deno.test("what was committed is found again, whole, by the next process", () =>
  inFolder((path) => {
    const states: string[] = [];
    {
      using dir = RamDir.open(path);
      const replica = replicaIn(dir);
      apply(replica, true, fullStream(1));
      for (let seed = 1; seed < 9; seed++) {
        apply(replica, false, checkpointBody(seed, page(seed % 8, seed, "pc.ram"), zero(3)));
      }
      states.push(fingerprint(replica));
      // What is staged when the process ends is not part of it.
      const next = checkpointBody(77, page(0, 77, "pc.ram"), page(2, 78, "rom"));
      replica.begin({ full: false, based: false });
      replica.receive(next, 0, next.length);
    }
    assert.equal(reopened(path), states[0]);
    assert.equal(reopened(path), states[0], "looking does not change it");
  }));

Deno.test("a sender goes on from a replica that was found again, and sends what it lacks", () =>
  inFolder(async (path) => {
    {
      using dir = RamDir.open(path);
      const replica = replicaIn(dir);
      apply(replica, true, fullStream(1));
      apply(replica, false, checkpointBody(4, page(5, 4, "pc.ram")));
    }
    using dir = RamDir.open(path);
    const found = dir.recover();
    assert.ok(!("nothing" in found));
    const replica = replicaIn(dir);
    replica.adopt(found);
    const link = await Loopback.open({ replica });
    assert.equal(link.primary.peer?.committed, 2);
    link.feed(fullStream(1));
    assert.equal(replica.committed, 3);
    assert.ok(link.primary.counters.unchangedPages > 5);
    const before = fingerprint(replica);
    assert.notEqual(before, "nothing");
    dir.close();
    assert.equal(reopened(path), before);
  }));

/** Lets a transaction be applied half-way, as a kill would leave it. */
function applyHalf(replica: Replica, dir: RamDir, bytes: Uint8Array): void {
  const end = dir.end.bind(dir);
  dir.end = () => {
    throw new TransportError(dir.path, "write", "killed");
  };
  assert.throws(() => apply(replica, false, bytes), /killed/);
  dir.end = end;
}

Deno.test("a transaction that was being applied makes the files no replica, until one is whole", () =>
  inFolder((path) => {
    {
      using dir = RamDir.open(path);
      const replica = replicaIn(dir);
      apply(replica, true, fullStream(1));
      applyHalf(replica, dir, checkpointBody(2, page(1, 2, "pc.ram")));
    }
    assert.match(reopened(path), /transaction 2 was being applied/);
    assert.match(reopened(path), /there was no replica/);
    assert.deepEqual([...Deno.readDirSync(path)].map(({ name }) => name).sort(), [
      "device-0",
      "device-1",
      "lock",
      "state",
    ]);
  }));

Deno.test("files that a VM was given are no replica, nor are those of another boot or damaged ones", () =>
  inFolder((path) => {
    const commit = (spoil: (dir: RamDir) => void) => {
      using dir = RamDir.open(path);
      dir.recover();
      apply(replicaIn(dir), true, fullStream(1));
      spoil(dir);
      dir.close();
      return reopened(path);
    };
    const state = `${path}/state`;
    assert.match(commit((dir) => dir.give()), /transaction 1 was given to a VM/);
    const edited = (from: RegExp, to: string) => {
      Deno.writeTextFileSync(state, Deno.readTextFileSync(state).replace(from, to));
    };
    assert.match(
      commit(() => edited(/"bootId":"[^"]*"/, '"bootId":"another"')),
      /booted since/,
    );
    assert.match(commit(() => edited(/"generation":\d+/, '"generation":-1')), /state is damaged/);
    assert.match(commit(() => Deno.truncateSync(state, 20)), /cannot be read/);
    assert.match(commit(() => Deno.truncateSync(`${path}/device-1`, 3)), /not complete/);
    assert.match(commit(() => Deno.truncateSync(`${path}/1/pc.ram`, 512)), /has changed/);
    assert.match(commit(() => Deno.removeSync(`${path}/1/rom`)), /cannot be read/);
    assert.match(commit(() => Deno.writeTextFileSync(`${path}/1/layout`, "{}")), /damaged/);
  }));

Deno.test("an image that is replaced is removed as it was said, and what is left of it by the next process", () =>
  inFolder((path) => {
    const removed: string[] = [];
    let state = "";
    {
      using dir = RamDir.open(path);
      dir.removeFolder = (folder) => removed.push(folder);
      const replica = replicaIn(dir);
      apply(replica, true, fullStream(1));
      apply(replica, true, fullStream(2));
      state = fingerprint(replica);
    }
    assert.deepEqual(removed, [`${path}/1`]);
    assert.ok(Deno.statSync(removed[0]).isDirectory, "removing takes its time");
    assert.equal(reopened(path), state);
    assert.throws(() => Deno.statSync(removed[0]), Deno.errors.NotFound);
  }));

Deno.test("two processes do not use the same files", () =>
  inFolder((path) => {
    using _first = RamDir.open(path);
    assert.throws(() => RamDir.open(path), /another kemari recv uses these files/);
  }));

/** Page `number` of a guest with pages of 4 KiB. */
function largePage(number: number): Uint8Array {
  return concat(page(number * 4, number + 1, "pc.ram"), new Uint8Array(3 * PAGE_BYTES));
}

function counters() {
  return { committed: 0, pages: 0, zeroPages: 0, payloadBytes: 0, lastPayloadBytes: 0 };
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
  name: "no room: refused before the first page, or in mid-transaction with the replica as it was",
  ignore: Deno.uid() !== 0,
  fn: () =>
    inFolder(async (path) => {
      const mount = (...args: string[]) => new Deno.Command("mount", { args }).output();
      const size = 24 * 2 ** 20;
      assert.ok((await mount("-t", "tmpfs", "-o", `size=${size}`, "none", path)).success);
      try {
        await Deno.writeFile(`${path}/ballast`, new Uint8Array(10 * 2 ** 20));
        const full = concat(
          [HEADER, configuration("toy", 12), ramSection("START", memSize([["pc.ram", 4 << 20]]))],
          [ramSection("END", [0, 1, 2].map(largePage)), deviceState(1), VMDESC],
        );
        {
          using careful = RamDir.open(path, "full");
          const replica = replicaIn(careful);
          replica.begin({ full: true, based: false });
          assert.throws(() => replica.receive(full, 0, full.length), /RAM takes up to .* are free/);
          replica.abort();
        }
        using dir = RamDir.open(path);
        const replica = replicaIn(dir);
        await Deno.remove(`${path}/ballast`);
        apply(replica, true, full);
        const before = [fingerprint(replica), replica.memoryBytes];
        const large = checkpointBody(9, [1, 5, 6, 7, 8, 9, 200, 300, 301, 302].map(largePage));
        // Room for the first of the pages, and not for all.
        fill(`${path}/ballast`);
        Deno.truncateSync(`${path}/ballast`, Deno.statSync(`${path}/ballast`).size - 6 * 4096);
        const secondary = new Secondary(
          replica,
          counters(),
          {
            heartbeatMs: 1000,
            graceMs: 5000,
            maxTransactionBytes: 1e8,
            committed: 1,
            software: "full",
          },
          0,
          () => 0,
        );
        secondary.begin(2, { full: false, based: false });
        secondary.payload(large, 0, large.length);
        assert.throws(() => secondary.commit(2), (error) => {
          assert.ok(error instanceof TransportError);
          assert.match(error.message, /pc.ram: no room for \d+ bytes: no space left/);
          secondary.refuse(error);
          return true;
        });
        assert.deepEqual([fingerprint(replica), replica.memoryBytes], before);
        assert.match(new TextDecoder().decode(concat(secondary.takeOutput())), /no space left/);
        // What was reserved was given back, and the replica goes on once there is room.
        await Deno.remove(`${path}/ballast`);
        apply(replica, false, large);
        assert.equal(replica.memoryBytes, 12 * 4096);
        dir.close();
        assert.equal(reopened(path), fingerprint(replica));
      } finally {
        await new Deno.Command("umount", { args: ["--lazy", path] }).output();
      }
    }),
});

Deno.test("a process killed at any moment leaves its last whole transaction, or one known as half", () =>
  inFolder(async (path) => {
    let whole = 0;
    for (let round = 0; round < 12; round++) {
      const writer = new URL("./testing/ram_dir_writer.ts", import.meta.url).pathname;
      const child = new Deno.Command(Deno.execPath(), {
        args: ["run", "-A", "--quiet", "--no-check", writer, path],
        stdout: "piped",
      }).spawn();
      await child.stdout.getReader().read();
      await delay(5 + 7 * round);
      child.kill("SIGKILL");
      await child.status;
      const found = reopened(path);
      if (/^transaction \d+ was being applied$/.test(found)) continue;
      whole++;
      const truth = new Replica(1e8);
      const transaction = Number(found.split(" ")[0]);
      assert.ok(transaction > 0, found);
      while (truth.committed < transaction) commitNext(truth);
      assert.equal(found, fingerprint(truth));
      using dir = RamDir.open(path);
      dir.discard();
    }
    assert.ok(whole > 0, "some were whole");
  }));
