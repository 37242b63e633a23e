/** A sender whose HELLO asks for something that storage keeps to itself for long. */
import assert from "node:assert/strict";
import { WireError } from "../../errors.ts";
import { fullStream } from "../../qemu/testing/synthetic_stream.ts";
import { decodeDiskMarks } from "../../replica/events/disk_marks.ts";
import { ImageMarks, lookForSameImages, type MarkedDisk } from "../image/image_marks.ts";
import { libc } from "../system/libc.ts";
import { HelloGate } from "./hello_gate.ts";
import type { ReceiverSettings } from "./receiver_host.ts";
import { Stage, wireOf } from "../link/testing/link_stage.ts";
import { never } from "../system/never.ts";

const FIRST = fullStream(1);
const HANDOVER_BYTES = 20;

interface Scene {
  readonly stage: Stage;
  readonly disk: (folder: string) => MarkedDisk;
  readonly marks: ImageMarks;
  /** Lets the storage answer. */
  answer(): Promise<void>;
}

/** A receiver whose storage does not answer what it has beside its image: a FIFO without a writer. */
async function withSilentStorage(
  options: Partial<ReceiverSettings>,
  body: (scene: Scene) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "kemari-hello-" });
  const disk = (where: string): MarkedDisk => {
    return { name: "d", path: `${folder}/${where}/image`, mode: "replicated" };
  };
  for (const where of ["theirs", "ours"]) {
    await Deno.mkdir(`${folder}/${where}`);
    await Deno.writeFile(disk(where).path, new Uint8Array(4096));
  }
  const marks = new ImageMarks([disk("theirs")]);
  await marks.placed;
  const [{ mark }] = decodeDiskMarks(marks.fields, 0);
  const fifo = `${folder}/ours/.kemari-mark-${mark.toHex()}`;
  assert.ok((await new Deno.Command("mkfifo", { args: [fifo] }).output()).success);
  // Whoever opens it on the loop waits for this, and the test with it.
  const watchdog = new Deno.Command("sh", {
    args: ["-c", `sleep 8; echo late >"$0"`, fifo],
    stdin: "null",
  }).spawn();
  let isAnswered = false;
  const answer = async () => {
    if (isAnswered) return;
    isAnswered = true;
    await Deno.writeTextFile(fifo, "-\nanother image");
  };
  try {
    await using stage = await Stage.open({
      look: (hello) => lookForSameImages(hello, [disk("ours")]),
      graceMs: 20_000,
      ...options,
    });
    await body({ stage, disk, marks, answer });
  } finally {
    await answer();
    await marks.remove();
    watchdog.kill("SIGKILL");
    await watchdog.status;
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test({
  name: "while storage is asked about a sender everything else goes on, and then the sender",
  // What the file system answers in the end is nobody's any more.
  sanitizeOps: false,
  fn: () =>
    withSilentStorage({}, async ({ stage, marks, answer }) => {
      let ticks = 0;
      stage.reactor.every(20, () => ticks++);
      let isOver = false;
      const sending = stage.send(FIRST, { marks, graceMs: 20_000 }).finally(() => isOver = true);
      sending.catch(() => {});
      // Longer than one that says nothing is borne with, once another comes.
      await stage.reactor.sleep(600, never);
      libc().close(await stage.connect());
      const before = ticks;
      await stage.reactor.run(() => ticks > before + 10, never);
      assert.ok(!isOver);
      assert.equal(stage.receiver.replica.committed, 0);
      assert.equal(stage.receiver.state, "receiving");
      await stage.reactor.during(answer(), never);
      await sending;
      assert.equal(stage.receiver.replica.committed, 1);
    }),
});

Deno.test({
  name:
    "storage that does not answer in half of the grace time is the refusal, within the grace time",
  sanitizeOps: false,
  fn: () =>
    withSilentStorage({ graceMs: 1000 }, async ({ stage, marks }) => {
      const refused = (pattern: RegExp) => (error: unknown) => {
        assert.ok(error instanceof WireError, `${error}`);
        assert.equal(error.fault, "storage");
        assert.match(error.message, pattern);
        return true;
      };
      await assert.rejects(
        stage.send(FIRST, { marks, graceMs: 20_000 }),
        refused(/the storage of the disks here does not answer what it is asked about the sender/),
      );
      await stage.quiet();
      // The first look keeps a thread of the runtime's: it is not to be joined by more.
      await assert.rejects(
        stage.send(FIRST, { marks, graceMs: 20_000 }),
        refused(/about a sender before this one/),
      );
      await stage.quiet();
      assert.equal(stage.receiver.state, "listening");
    }),
});

Deno.test("a HELLO is looked at whole, wherever it is cut, and nothing behind it is lost", async () => {
  await using stage = await Stage.open();
  const wire = (await wireOf(FIRST)).subarray(0, -HANDOVER_BYTES).slice();
  // A sender that never gives its receiver up.
  new DataView(wire.buffer).setUint32(20 + 36, 0);
  const helloBytes = 20 + new DataView(wire.buffer).getUint32(16);
  for (const cut of [1, 19, 20, 21, helloBytes - 1, helloBytes, helloBytes + 1, wire.length]) {
    const read: number[] = [];
    let looks = 0;
    const look = async () => {
      looks++;
      await Promise.resolve();
      return (offset: number) => assert.equal(offset, 20);
    };
    let opened = false;
    const gate = new HelloGate(stage.reactor, { look, graceMs: 1000 }, {
      opened: () => opened = true,
      failed: (error) => assert.fail(error),
    });
    for (const piece of [wire.subarray(0, cut), wire.subarray(cut)]) read.push(...gate.take(piece));
    assert.equal(read.length, 0);
    assert.ok(gate.isLooking);
    await stage.reactor.run(() => opened, never);
    read.push(...gate.take(wire.subarray(0, 0)));
    assert.deepEqual(Uint8Array.from(read), wire, `cut at ${cut}`);
    assert.equal(looks, 1);
    gate.admit(20);
    assert.deepEqual(gate.take(wire), wire);
    gate.close();
  }
  // What is no HELLO is not kept: whoever reads it says so.
  for (const bytes of [wire.subarray(helloBytes).slice(), new TextEncoder().encode("GET / HTTP")]) {
    const gate = new HelloGate(stage.reactor, { look: () => assert.fail(), graceMs: 1000 }, {
      opened: () => assert.fail(),
      failed: (error) => assert.fail(error),
    });
    assert.deepEqual(gate.take(bytes), bytes);
  }
});
