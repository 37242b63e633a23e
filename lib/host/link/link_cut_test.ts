/** A link between sender and receiver that breaks at every byte, and bytes that change on it. */
import assert from "node:assert/strict";
import { KemariError, WireError } from "../../errors.ts";
import {
  checkpoint,
  concat,
  fullStream,
  PAGE_BYTES,
  pageOf,
  VMDESC,
} from "../../qemu/testing/synthetic_stream.ts";
import { HEADER_BYTES, TXN } from "../../txn/wire.ts";
import { contentOf, LINKS, Stage, tinyStream, wireOf } from "./testing/link_stage.ts";

const FIRST = fullStream(1);

/** Every length at which it matters; inside of a page's content, only some. */
function* cuts(stream: Uint8Array, pageAt: number): Generator<number> {
  for (let length = 0; length < stream.length; length++) {
    const inside = length - pageAt;
    if (inside > 8 && inside < PAGE_BYTES - 8 && inside % 97 !== 0) continue;
    yield length;
  }
}

/** Where a stream's only page has its content. */
function pageContentAt(stream: Uint8Array, seed: number): number {
  const content = pageOf(seed);
  return stream.findIndex((_, at) => content.every((byte, i) => stream[at + i] === byte));
}

for (const [over, security] of LINKS) {
  Deno.test(`${over}QEMU's stream cut at any byte: an error at the sender, no change at the receiver`, async () => {
    await using stage = await Stage.open({}, undefined, security);
    await stage.send(tinyStream(1));
    stage.receiver.resume();
    const before = contentOf(stage.receiver.replica);
    const stream = tinyStream(40);
    const withoutDescription = stream.length - VMDESC.length;
    for (const length of cuts(stream, pageContentAt(stream, 40))) {
      // Cut just behind the device state, it is a whole stream of a machine that describes nothing.
      if (length === withoutDescription) continue;
      await assert.rejects(stage.send(stream.subarray(0, length)), (error) => {
        assert.ok(error instanceof WireError, `${length}: ${error}`);
        assert.equal(error.fault, "truncated", `${length}: ${error}`);
        return error.exitCode === 3;
      });
      await stage.quiet();
      assert.equal(stage.receiver.replica.committed, 1, `cut at ${length}`);
      assert.equal(stage.receiver.state, "waiting");
    }
    assert.equal(contentOf(stage.receiver.replica), before);
    // And after all that, the whole stream gets through.
    await stage.send(stream);
    assert.notEqual(contentOf(stage.receiver.replica), before);
  });

  Deno.test(`${over}the connection cut at any byte: nothing changes before COMMIT is there, whole`, async () => {
    const wire = await wireOf(tinyStream(5));
    const committedAt = wire.length - HEADER_BYTES;
    assert.equal(wire[committedAt + 2], TXN.HANDOVER);
    for (const length of cuts(wire, pageContentAt(wire, 5))) {
      await using stage = await Stage.open({}, undefined, security);
      await stage.speak(wire.subarray(0, length));
      await stage.quiet();
      assert.equal(
        stage.receiver.replica.committed,
        length < committedAt ? 0 : 1,
        `cut at ${length}`,
      );
      if (length >= committedAt) continue;
      assert.equal(
        stage.receiver.replica.memoryBytes,
        0,
        `cut at ${length}: staged pages were kept`,
      );
      assert.equal(contentOf(stage.receiver.replica), "nothing");
    }
  });

  Deno.test(`${over}a COLO stream cut at any byte leaves the checkpoints before it`, async () => {
    const stream = concat(FIRST, checkpoint(9), checkpoint(20));
    const whole = FIRST.length + checkpoint(9).length;
    await using stage = await Stage.open({}, undefined, security);
    for (let length = FIRST.length + 4; length < stream.length; length += 37) {
      const committed = stage.receiver.replica.committed;
      await assert.rejects(
        stage.send(stream.subarray(0, length), { stream: "colo" }),
        (error) => error instanceof KemariError && [3, 4].includes(error.exitCode),
      );
      await stage.quiet();
      const fresh = stage.receiver.replica.committed - committed;
      // The last ACK may not have been waited for, but a checkpoint that is cut never counts.
      assert.ok(fresh <= (length >= whole ? 2 : 1), `${length}: ${fresh}`);
    }
  });

  Deno.test(`${over}flipped bytes on the wire never reach the replica`, async () => {
    const wire = await wireOf(FIRST);
    await using stage = await Stage.open({}, undefined, security);
    for (let at = 0; at < wire.length - 20; at += 7) {
      const damaged = wire.slice();
      damaged[at] ^= 1 << at % 8;
      // HELLO carries numbers and a name that may be anything.
      if (at > 2 && at < 90) continue;
      await stage.speak(damaged);
      // Unread bytes are drained for a while, so that the refusal arrives.
      await stage.quiet();
      assert.equal(stage.receiver.replica.committed, 0, `bit flipped at ${at}`);
    }
  });
}
