/** Whose replica a receiver keeps, and who may take its place. */
import assert from "node:assert/strict";
import type { VmIdentity } from "../../decisions/whose_replica.ts";
import { WireError } from "../../errors.ts";
import {
  concat,
  configuration,
  deviceState,
  fullStream,
  HEADER,
  memSize,
  name,
  page,
  PAGE_BYTES,
  ramSection,
  u32,
  VMDESC,
} from "../../qemu/testing/synthetic_stream.ts";
import { CopyOwner } from "./copy_owner.ts";
import { contentOf, Stage, tinyStream, wireOf } from "../link/testing/link_stage.ts";
import { RamDir } from "../ram_dir/ram_dir.ts";
import type { ReceiverSettings } from "../receive/receiver_host.ts";
import { ReplicaHome } from "./replica_home.ts";
import { ReplicaOwner } from "./replica_owner.ts";
import { never } from "../system/never.ts";
import { until } from "../../lab/program/until.ts";

const A: VmIdentity = { uuid: "a".repeat(32), name: "alpha" };
const B: VmIdentity = { uuid: "b".repeat(32), name: "beta" };
const C: VmIdentity = { uuid: "c".repeat(32), name: "gamma" };
const FIRST = fullStream(1);
const SECOND = fullStream(40);
const HANDOVER_BYTES = 20;

/** A machine with the given configuration, and one block of two pages. */
function machine(...start: Uint8Array[]): Uint8Array {
  return concat(
    HEADER,
    ...start,
    ramSection("START", memSize([["pc.ram", 2 * PAGE_BYTES]])),
    ramSection("END", page(0, 7, "pc.ram"), page(1, 8)),
    deviceState(7),
    VMDESC,
  );
}

const withUuid = (digit: number) =>
  configuration(
    "toy",
    10,
    [5, name("configuration/uuid"), u32(1)],
    new Array(16).fill(digit),
  );

/** A receiver that keeps a stream of a VM. */
async function keeping(
  vm: VmIdentity,
  stream: Uint8Array,
  options: Partial<ReceiverSettings> = {},
): Promise<Stage> {
  const stage = await Stage.open(options);
  await stage.send(stream, { vm });
  stage.receiver.resume();
  assert.equal(stage.receiver.replica.committed, 1);
  return stage;
}

async function assertRefused(sending: Promise<unknown>, ...names: RegExp[]): Promise<void> {
  await assert.rejects(sending, (error) => {
    assert.ok(error instanceof WireError, `${error}`);
    assert.equal(error.fault, "other-vm");
    assert.equal(error.exitCode, 3);
    for (const name of names) assert.match(error.message, name);
    assert.match(error.hint!, /--vm.*--replace/);
    return true;
  });
}

for (const onLoss of ["wait", "exit", "activate"] as const) {
  Deno.test(`another VM's sender changes nothing and ends nothing, --on-loss ${onLoss}`, async () => {
    await using stage = await keeping(A, FIRST, { onLoss });
    const before = contentOf(stage.receiver.replica);
    for (const other of [B, { name: "beta" }]) {
      await assertRefused(
        stage.send(SECOND, { vm: other }),
        /keeps transaction 1 of VM alpha \(aaaaaaaa-aaaa/,
        /is another one, VM beta/,
      );
      await stage.quiet();
      assert.equal(contentOf(stage.receiver.replica), before);
      assert.notEqual(stage.receiver.state, "activating");
      assert.deepEqual(stage.receiver.owner.kept, A);
    }
    // Its own is welcome, by what of its identity is known.
    await stage.send(SECOND, { vm: { ...A, name: "renamed", process: "d".repeat(32) } });
    assert.equal(stage.receiver.replica.committed, 2);
    assert.equal(stage.receiver.owner.kept.name, "renamed");
  });
}

Deno.test("a stranger that was refused does not make a replica look old to kemari failover", async () => {
  await using stage = await Stage.open();
  const wire = await wireOf(FIRST, { vm: A });
  await stage.speak(wire.subarray(0, -HANDOVER_BYTES), 100);
  await stage.quiet();
  await assertRefused(stage.send(SECOND, { vm: B }));
  await stage.quiet();
  // Refused by its stream, after it was let in: the same.
  await assertRefused(stage.send(tinyStream(1), {}));
  await stage.quiet();
  stage.receiver.failover();
  assert.equal(await stage.receiver.receive(never), "failover");
});

Deno.test("a VM of which nothing is known is taken for the one that is kept, unless its stream is another machine's", async () => {
  await using stage = await keeping(A, FIRST);
  const before = contentOf(stage.receiver.replica);
  const others: [Uint8Array, RegExp][] = [
    [tinyStream(1), /an unnamed VM, by its RAM and devices/],
    [machine(configuration("other")), /by its machine, other/],
    [machine(withUuid(0xbb)), /by the UUID in its stream/],
  ];
  for (const [stream, message] of others) {
    await assertRefused(stage.send(stream), /VM alpha/, message);
    await stage.quiet();
    assert.equal(contentOf(stage.receiver.replica), before);
  }
  await stage.send(SECOND);
  stage.receiver.resume();
  assert.equal(stage.receiver.replica.committed, 2);
  // It is VM alpha's still.
  await assertRefused(stage.send(FIRST, { vm: B }), /VM alpha/);
});

Deno.test("the same VM may have another machine by now, if something names it", async () => {
  await using stage = await keeping(A, FIRST);
  await stage.send(tinyStream(3), { vm: A });
  stage.receiver.resume();
  // A stream that names it is enough.
  await stage.send(machine(withUuid(0xaa)));
  assert.equal(stage.receiver.replica.committed, 3);
});

Deno.test("two VMs without names are told apart by their devices, and by their QEMU", async () => {
  const [one, two] = ["1", "2"].map((digit) => digit.repeat(32));
  await using stage = await keeping({ process: one, shape: one }, FIRST);
  await assertRefused(stage.send(SECOND, { vm: { process: two, shape: two } }), /devices 11111111/);
  await stage.quiet();
  await stage.send(SECOND, { vm: { process: one, shape: two } });
  assert.equal(stage.receiver.replica.committed, 2);
});

Deno.test("--replace gives the place to the first other VM that commits, and to no third one", async () => {
  await using stage = await keeping(A, FIRST, { owner: new ReplicaOwner(true) });
  // Cut: they commit nothing, and come again.
  for (const vm of [B, C, B]) {
    await assert.rejects(stage.send(SECOND.subarray(0, 2000), { vm, stream: "plain" }));
    await stage.quiet();
    assert.deepEqual(stage.receiver.owner.kept, A);
  }
  await stage.send(tinyStream(2), { vm: C });
  stage.receiver.resume();
  assert.deepEqual(stage.receiver.owner.kept, C);
  for (const vm of [A, B]) {
    await assertRefused(stage.send(FIRST, { vm }), /VM gamma/);
    await stage.quiet();
  }
});

Deno.test("--replace lets in one VM that only its stream shows to be another, and no third one", async () => {
  await using stage = await keeping(A, FIRST, { owner: new ReplicaOwner(true) });
  await assert.rejects(stage.send(machine(configuration("other")).subarray(0, 200), {}));
  await stage.quiet();
  assert.equal(
    stage.receiver.replica.committed,
    1,
    "it has committed nothing: the place is still free",
  );
  await stage.send(machine(configuration("other")));
  stage.receiver.resume();
  assert.equal(stage.receiver.replica.machine, "other");
  await assertRefused(stage.send(FIRST), /an unnamed VM, by its /);
});

Deno.test("a disk's copy is its VM's, though the replica is gone, until the VM runs on it", async () => {
  const folder = Deno.makeTempDirSync({ prefix: "kemari-owner-" });
  const path = `${folder}/copy.img`;
  Deno.writeFileSync(path, new Uint8Array(4096));
  const copies = new CopyOwner([
    { name: "d", path, mode: "replicated" },
    // A shared image is no copy.
    { name: "s", path: `${folder}/none`, mode: "shared" },
  ]);
  const open = (replace = false) => Stage.open({ owner: new ReplicaOwner(replace, copies) });
  const noted = (vm: VmIdentity) =>
    until(async () => (await copies.owners())[0]?.vm.uuid === vm.uuid, "the copy's note");
  try {
    {
      // Who says HELLO and commits nothing has written nothing.
      await using stage = await open();
      await assert.rejects(stage.send(SECOND.subarray(0, 2000), { vm: B, stream: "plain" }));
      await stage.quiet();
      assert.deepEqual(await copies.owners(), []);
      await stage.send(FIRST, { vm: A });
      await noted(A);
      assert.deepEqual(await copies.owners(), [{ path, vm: A }]);
    }
    {
      await using stage = await open();
      await assertRefused(stage.send(SECOND, { vm: B }), /copy\.img, of VM alpha.*VM beta/);
      await stage.quiet();
      assert.equal(stage.receiver.replica.committed, 0);
      await stage.send(SECOND, { vm: A });
    }
    {
      await using stage = await open(true);
      await stage.send(SECOND, { vm: B });
      await noted(B);
      stage.receiver.activated();
      await until(async () => (await copies.owners()).length === 0, "the note to go");
    }
    await using stage = await open();
    await stage.send(SECOND, { vm: C });
    await noted(C);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

for (const place of ["first", "last"]) {
  Deno.test(`of several copies the ${place} one's VM may be another, which the stream shows`, async () => {
    const folder = Deno.makeTempDirSync({ prefix: "kemari-owner-" });
    const process = "d".repeat(32);
    const disks = ["1", "2"].map((name) => {
      const path = `${folder}/${name}`;
      Deno.writeFileSync(path, new Uint8Array(4096));
      return { name, path, mode: "replicated" } as const;
    });
    const copies = (at: number) => new CopyOwner([disks[at]]);
    try {
      const unknown = place === "first" ? 0 : 1;
      await copies(unknown).note({ uuid: "a".repeat(32) });
      await copies(1 - unknown).note({ process });
      await using stage = await Stage.open({
        owner: new ReplicaOwner(false, new CopyOwner(disks)),
      });
      await assertRefused(
        stage.send(machine(withUuid(0xbb)), { vm: { process } }),
        new RegExp(
          `a disk's copy, ${disks[unknown].path}, of VM aaaaaaaa-.*by the UUID in its stream`,
        ),
      );
      await stage.quiet();
      assert.equal(stage.receiver.replica.committed, 0);
      await stage.send(machine(withUuid(0xaa)), { vm: { process } });
      assert.equal(stage.receiver.replica.committed, 1);
    } finally {
      Deno.removeSync(folder, { recursive: true });
    }
  });
}

Deno.test("a recv that is started again knows whose replica is in its files", async () => {
  const folder = Deno.makeTempDirSync({ prefix: "kemari-owner-", dir: "/dev/shm" });
  const settings = {
    listen: "unix:s",
    ramDir: `${folder}/ram`,
    ramReserve: "full",
    hasSharedDisks: false,
  } as const;
  const open = async () => {
    const home = ReplicaHome.open(settings);
    const stage = await Stage.open({ store: home.store });
    home.recover(stage.receiver.replica, stage.receiver.owner);
    return { home, stage };
  };
  try {
    {
      const { home, stage } = await open();
      await using _stage = stage;
      await stage.send(FIRST, { vm: A });
      home.leave();
    }
    {
      const { home, stage } = await open();
      await using _stage = stage;
      assert.equal(stage.receiver.replica.committed, 1);
      assert.deepEqual(stage.receiver.owner.kept, A);
      await assertRefused(stage.send(SECOND, { vm: B }), /VM alpha.*VM beta/);
      await stage.quiet();
      await stage.send(SECOND, { vm: { ...A, name: "renamed" } });
      home.leave();
    }
    {
      using dir = RamDir.open(settings.ramDir);
      const found = dir.recover();
      assert.ok(!("nothing" in found));
      assert.deepEqual(found.vm, { ...A, name: "renamed" });
    }
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});
