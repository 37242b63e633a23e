/** A session names all of the secondary's disks in its first transaction, or commits nothing. */
import assert from "node:assert/strict";
import { checkpoint, fullStream } from "../../qemu/testing/synthetic_stream.ts";
import { WireError } from "../../errors.ts";
import type { DiskMode, TapEvent } from "../events/tap_events.ts";
import { SecondaryTaps } from "../events/secondary_taps.ts";
import { FakeDisk } from "../testing/fake_disk.ts";
import { fingerprint, Loopback } from "../testing/loopback.ts";
import { ScriptedTaps } from "../testing/scripted_taps.ts";
import { Replica } from "./replica.ts";

const SIZE = 8192;

const named = (tap: string, mode: DiskMode = "replicated"): TapEvent => {
  return { kind: "disk", tap, sizeBytes: SIZE, mode };
};
const copied = (tap: string): TapEvent => ({ kind: "copied", tap });
const write = (tap: string, value: number): TapEvent => {
  return { kind: "write", tap, offset: 0, data: Uint8Array.of(value) };
};

/** A secondary with these disks. */
function secondary(disks: Readonly<Record<string, DiskMode>>) {
  const copies: Record<string, FakeDisk> = {};
  const config = Object.entries(disks).map(([name, mode]) => {
    copies[name] = new FakeDisk(SIZE);
    const copy = mode === "replicated" ? copies[name] : undefined;
    return [name, { mode, sizeBytes: SIZE, copy }] as const;
  });
  const taps = new SecondaryTaps(new Map(config), new Set());
  return { copies, replica: new Replica(1e9, undefined, taps) };
}

/** A session whose first transaction has these events. */
async function send(replica: Replica, events: readonly TapEvent[]) {
  const taps = new ScriptedTaps();
  taps.next = [...events];
  const link = await Loopback.open({ replica, taps, holdAnswers: true });
  const feed = () => link.feed(fullStream(3));
  return { link, taps, feed };
}

function refused(error: unknown, disks: RegExp): true {
  assert.ok(error instanceof WireError, `${error}`);
  assert.match(error.message, disks);
  assert.equal(error.party, "peer");
  return true;
}

const CASES: readonly (readonly [string, Record<string, DiskMode>, TapEvent[], RegExp])[] = [
  ["no disk at all", { d: "replicated" }, [], /recv has disk d, which/],
  ["one of two", { d: "replicated", e: "replicated" }, [named("d"), copied("d")], /has disk e, /],
  ["none of two", { d: "replicated", e: "shared" }, [], /recv has disk d, e, which/],
  ["no shared disk", { s: "shared" }, [], /recv has disk s, which/],
];
for (const [what, disks, events, message] of CASES) {
  Deno.test(`a session that names ${what} commits nothing, and may not hand over`, async () => {
    const { replica } = secondary(disks);
    const { link, feed } = await send(replica, events);
    assert.throws(feed, (error) => refused(error, message));
    assert.equal(replica.committed, 0);
    assert.throws(
      () => link.answer(),
      (error) => refused(error, /the receiver refused transaction 1: .*give both sides the same/),
    );
  });
}

Deno.test("a session that names all disks commits", async () => {
  const { replica } = secondary({ d: "replicated", s: "shared" });
  const { link, feed } = await send(replica, [named("d"), named("s", "shared"), copied("d")]);
  feed();
  link.answer();
  assert.equal(replica.committed, 1);
  assert.equal(replica.taps.unfit, undefined);
});

Deno.test("a session that names no disk leaves an earlier one's replica and copy as they are", async () => {
  const { replica, copies } = secondary({ d: "replicated" });
  const first = await send(replica, [named("d"), copied("d"), write("d", 7)]);
  first.feed();
  const before = fingerprint(replica);
  const second = await send(replica, []);
  assert.throws(second.feed, (error) => refused(error, /recv has disk d/));
  assert.equal(fingerprint(replica), before);
  assert.equal(
    replica.taps.unfit,
    undefined,
    "state and disk are of one moment, if an earlier one",
  );
  assert.equal(copies.d.bytes[0], 7);
  // A later transaction of a session that has named them need not say so again.
  const third = await send(replica, [named("d"), copied("d")]);
  third.feed();
  third.taps.next = [write("d", 9)];
  third.link.feed(checkpoint(4));
  assert.deepEqual([replica.committed, copies.d.bytes[0]], [3, 9]);
});

Deno.test("what was stored goes with the disks that were there then, and with no others", () => {
  const cases: readonly (readonly [string[] | undefined, RegExp | undefined])[] = [
    [["d", "e"], undefined],
    [["d"], /disk e: the VM's state here was committed without it/],
    [[], /disk d: the VM's state here was committed without it/],
    // An earlier version has noted none.
    [undefined, undefined],
  ];
  for (const [stored, wanted] of cases) {
    const { replica: { taps } } = secondary({ d: "replicated", e: "replicated" });
    assert.equal(taps.unfit, undefined, "nothing is committed");
    taps.adopt(stored);
    if (wanted === undefined) assert.equal(taps.unfit, undefined);
    else assert.match(taps.unfit!.message, wanted);
  }
});
