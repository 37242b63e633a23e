import assert from "node:assert/strict";
import { TransportError, WireError } from "../../errors.ts";
import {
  checkpoint,
  command,
  concat,
  deviceState,
  fullStream,
  OPEN_RETURN_PATH,
  PING,
  VMDESC,
} from "../../qemu/testing/synthetic_stream.ts";
import { COMMAND } from "../../qemu/wire.ts";
import { composed, LoadedVm, Loopback } from "../testing/loopback.ts";

const PONG = "0002000400000007";
const SHUT = "0001000400000000";
const READY = "00000000";

/** A stream of a machine with suppress-vmdesc=on. */
function silent(...before: readonly Uint8Array[]): Uint8Array {
  return fullStream(1, before).subarray(0, -VMDESC.length);
}

const WITH_RETURN_PATH = silent(OPEN_RETURN_PATH, PING);
const COLO_BEFORE_11 = silent(command(COMMAND.MIG_CMD_ENABLE_COLO));
const TOLD = { stream: "colo", firstPassEnd: "told" } as const;

/** Looks into QEMU's channel, which is empty, if that is wanted. @returns Whether it was. */
function look(link: Loopback, unparsedBytes = 0): boolean {
  if (!link.primary.wantsLook(link.now)) return false;
  link.primary.foundEmpty(unparsedBytes, link.now);
  link.pump();
  return true;
}

/** Lets time pass, and looks as often as a link does. */
function wait(link: Loopback, forMs: number): void {
  for (const end = link.now + forMs; link.now < end; link.now += 50) look(link);
}

Deno.test("told: QEMU's word over QMP ends a first pass that nobody describes", async () => {
  const link = await Loopback.open(TOLD);
  link.feed(WITH_RETURN_PATH);
  assert.equal(link.takeReplies(), `${PONG} ${SHUT}`, "QEMU may go on to COLO, and will say so");
  wait(link, 60_000);
  assert.equal(link.replica.committed, 0, "silence is no end where QEMU says when it has come");
  link.primary.firstPass.enteredColo();
  assert.ok(look(link));
  assert.equal(link.replica.committed, 1);
  assert.equal(link.takeReplies(), READY);
  link.feed(checkpoint(9));
  assert.equal(link.replica.committed, 2);
  link.feed(checkpoint(20).subarray(0, 100));
  link.primary.firstPass.enteredColo();
  assert.ok(!look(link), "said again, in the middle of a checkpoint");
});

Deno.test("told: a first pass with its description needs no word, and the word does no harm", async () => {
  const link = await Loopback.open(TOLD);
  link.feed(fullStream(1, [OPEN_RETURN_PATH, PING]));
  assert.equal(link.takeReplies(), `${PONG} ${SHUT} ${READY}`);
  link.primary.firstPass.enteredColo();
  assert.ok(!look(link));
  assert.equal(link.replica.committed, 1);
});

Deno.test("told: a QEMU in COLO whose first pass is no whole one is refused by what is missing", async (t) => {
  const cases: [string, Uint8Array, number, RegExp][] = [
    [
      "in device state",
      WITH_RETURN_PATH.subarray(0, -3),
      0,
      /no section ends where the state ends/,
    ],
    ["in a page", WITH_RETURN_PATH.subarray(0, 600), 40, /has come only as far as a ram section/],
    ["before anything", new Uint8Array(0), 0, /only as far as the stream's header/],
  ];
  for (const [name, bytes, unparsedBytes, message] of cases) {
    await t.step(name, async () => {
      const link = await Loopback.open(TOLD);
      link.feed(bytes);
      link.primary.firstPass.enteredColo();
      assert.throws(() => look(link, unparsedBytes), (error) => {
        assert.ok(error instanceof WireError && error.fault === "truncated", String(error));
        assert.match(error.message, message);
        return true;
      });
      assert.equal(link.replica.committed, 0);
    });
  }
});

for (
  const [name, stream, before, behind] of [
    ["11 and later, by its return path", WITH_RETURN_PATH, PONG, SHUT],
    ["before 11, by its own ENABLE_COLO", COLO_BEFORE_11, "", READY],
  ] as const
) {
  Deno.test(`silence behind a whole state ends it: ${name}`, async () => {
    const link = await Loopback.open();
    link.feed(stream);
    wait(link, 450);
    assert.equal(link.replica.committed, 0);
    assert.equal(link.takeReplies(), before);
    wait(link, 200);
    assert.equal(link.replica.committed, 1);
    assert.equal(link.takeReplies(), behind);
  });
}

Deno.test("silence in the middle of a state, or behind what looks like its end, is no end", async (t) => {
  for (const cut of [1, 3, 5]) {
    await t.step(`${cut} bytes are missing`, async () => {
      const link = await Loopback.open();
      link.feed(WITH_RETURN_PATH.subarray(0, -cut));
      wait(link, 9000);
      assert.equal(link.replica.committed, 0);
      assert.equal(link.primary.firstPass.takeStuckMs(link.now), undefined);
      wait(link, 2000);
      assert.ok(link.primary.firstPass.takeStuckMs(link.now)! > 10_000, "that is told of once");
      assert.equal(link.primary.firstPass.takeStuckMs(link.now), undefined);
      link.feed(WITH_RETURN_PATH.subarray(-cut));
      wait(link, 600);
      assert.equal(link.replica.committed, 1);
    });
  }
});

Deno.test("bytes that come while we stood still are no silence", async () => {
  const link = await Loopback.open();
  link.feed(WITH_RETURN_PATH);
  link.now += 5000;
  assert.ok(link.primary.wantsLook(link.now));
  // The look finds some.
  link.primary.firstPass.heard(link.now);
  assert.ok(!link.primary.wantsLook(link.now));
  assert.equal(link.replica.committed, 0);
});

Deno.test("a state that goes on behind its supposed end ends the session by that name", async () => {
  const link = await Loopback.open();
  link.feed(WITH_RETURN_PATH);
  wait(link, 600);
  assert.throws(() => link.feed(deviceState(2)), /behind what was taken for its end/);
});

Deno.test("a plain stream that nobody describes is handed over at its end", async () => {
  const link = await Loopback.open();
  link.feed(silent());
  wait(link, 60_000);
  assert.equal(link.replica.committed, 0, "QEMU closes a stream that has no return path");
  link.end();
  assert.equal(link.replica.committed, 1);
  assert.ok(link.primaryEvents.some(({ kind }) => kind === "handed-over"));
});

Deno.test("a COLO stream that nobody describes, and that breaks off, is a loss", async () => {
  const link = await Loopback.open(TOLD);
  link.feed(WITH_RETURN_PATH);
  assert.throws(() => link.end(), TransportError);
  assert.equal(link.replica.committed, 0);
});

Deno.test("the replica of a machine that describes nothing composes, and goes on with checkpoints", async () => {
  const link = await Loopback.open(TOLD);
  link.feed(WITH_RETURN_PATH);
  link.primary.firstPass.enteredColo();
  look(link);
  for (const seed of [9, 20]) {
    const described = new LoadedVm().load(composed(link.replica));
    assert.ok(described.vmdescription.length > 0, "what is composed is described as far as known");
    link.feed(checkpoint(seed));
  }
  assert.equal(link.replica.committed, 3);
});

Deno.test("a full state without a description forgets the one before it", async () => {
  const first = await Loopback.open({ stream: "snapshots" });
  first.feed(concat(fullStream(1)));
  first.end();
  assert.ok(first.replica.machineRecord!.vmdescription.length > 0);
  first.feed(silent());
  first.end();
  assert.equal(first.replica.committed, 2);
  assert.equal(first.replica.machineRecord!.vmdescription.length, 0);
});
