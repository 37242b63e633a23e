import assert from "node:assert/strict";
import { WireError } from "../../errors.ts";
import type { TapEvent } from "./tap_events.ts";
import { UnreleasedOutput } from "./unreleased_output.ts";

const data = new Uint8Array(1);
const packet = (tap: string): TapEvent => ({ kind: "packet", tap, frame: data });
const write = (tap: string): TapEvent => ({ kind: "write", tap, offset: 0, data });

/** Stages events of 10 bytes each, and commits them. */
function commit(output: UnreleasedOutput, transaction: number, ...events: TapEvent[]): void {
  for (const event of events) output.stage(event, 10, 7);
  for (const event of events) output.add(transaction, event, 10);
  output.unstage();
}

function refused(output: UnreleasedOutput, event: TapEvent, what: RegExp): void {
  assert.throws(() => output.stage(event, 10, 7), (error) => {
    assert.ok(error instanceof WireError && error.fault === "too-large" && error.offset === 7);
    return what.test(error.message);
  });
  output.unstage();
}

Deno.test("each tap may have so much unreleased, in transactions committed and open", () => {
  const output = new UnreleasedOutput({ packets: 30, writes: 20 });
  commit(output, 1, packet("n"), packet("n"), write("n"), write("d"), write("d"));
  refused(output, write("d"), /more than 20 bytes of writes to disk tap d without a RELEASED/);
  output.stage(write("n"), 10, 7);
  output.stage(packet("n"), 10, 7);
  assert.throws(
    () => output.stage(packet("n"), 10, 7),
    /more than 30 bytes of packets of net tap n/,
  );
  // What is dropped does not count.
  output.unstage();
  commit(output, 2, packet("n"));
  assert.equal(output.all.length, 6);
});

Deno.test("what is released makes room", () => {
  const output = new UnreleasedOutput({ packets: 20, writes: 20 });
  commit(output, 1, packet("n"));
  commit(output, 3, packet("n"));
  refused(output, packet("n"), /packets of net tap n/);
  output.released(2);
  commit(output, 4, packet("n"));
  refused(output, packet("n"), /packets of net tap n/);
  output.released(4);
  assert.deepEqual(output.all, []);
  commit(output, 5, packet("n"), packet("n"));
});

Deno.test("a disk that is named anew has only what belongs to that transaction", () => {
  const output = new UnreleasedOutput({ packets: 20, writes: 20 });
  commit(output, 1, write("d"), write("d"), packet("d"));
  output.renew("d");
  for (const event of [write("d"), write("d")]) output.stage(event, 10, 7);
  assert.throws(() => output.stage(write("d"), 10, 7), /writes to disk tap d/);
  output.forgetDisk("d", 2);
  output.add(2, write("d"), 10);
  output.unstage();
  assert.deepEqual(output.all.map(({ event }) => event.kind), ["packet", "write"]);
  commit(output, 3, write("d"));
  refused(output, write("d"), /writes to disk tap d/);
});
