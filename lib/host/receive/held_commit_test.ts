/** A transaction that is looked at before it is committed. */
import assert from "node:assert/strict";
import { type KemariError, QemuError, TransportError, WireError } from "../../errors.ts";
import { checkpoint, concat, fullStream } from "../../qemu/testing/synthetic_stream.ts";
import type { CommitGate } from "./commit_gate.ts";
import { libc } from "../system/libc.ts";
import { Stage } from "../link/testing/link_stage.ts";
import { never } from "../system/never.ts";
import { socketConnection } from "../link/peer_connection.ts";
import { SenderLink } from "../link/sender_link.ts";
import { delay } from "../system/delay.ts";

/** A gate that holds what it is told to, and notes what it is asked. */
class NotedGate implements CommitGate {
  readonly notes: string[] = [];
  constructor(
    private readonly holds: (transaction: number) => boolean,
    private readonly look: () => Promise<void> = () => Promise.resolve(),
  ) {}
  #seen = 0;

  mustHold(): boolean {
    return this.holds(++this.#seen);
  }
  async check(): Promise<void> {
    this.notes.push("check");
    await this.look();
  }
  settle(isCommitted: boolean): void {
    this.notes.push(isCommitted ? "committed" : "not committed");
  }
  abandon(): void {
    this.notes.push("abandoned");
  }
}

Deno.test("nothing is committed, and nobody blamed, until the check is over", async () => {
  const gate = new NotedGate(() => true, async () => {
    assert.equal(stage.receiver.replica.committed, 0);
    // Longer than the grace time.
    await delay(2000);
  });
  await using stage = await Stage.open({ heartbeatMs: 50, graceMs: 1000, gate });
  const link = await stage.send(fullStream(1));
  assert.equal(link.primary.counters.committed, 1);
  assert.equal(await stage.receiver.receive(never), "handover");
  assert.deepEqual(gate.notes, ["check", "committed"]);
});

/** Sends a stream that goes on, until whatever error comes. */
async function sendOn(stage: Stage, stream: Uint8Array): Promise<void> {
  const pipe = new Int32Array(2);
  libc().pipe2(new Uint8Array(pipe.buffer), 0);
  assert.equal(Number(libc().write(pipe[1], stream.slice(), BigInt(stream.length))), stream.length);
  const peer = socketConnection(await stage.connect(), "the socket");
  const link = new SenderLink(stage.reactor, peer, {
    commit: "async",
    stream: "colo",
    maxInFlightBytes: 2 ** 26,
    heartbeatMs: 200,
    graceMs: 2000,
    software: "test",
  });
  try {
    link.attach({ input: pipe[0], output: -1, name: "QEMU" });
    await stage.reactor.run(() => false, never);
  } finally {
    link.close();
    for (const fd of pipe) libc().close(fd);
  }
}

const MISFIT = new QemuError("standby", "Mismatch", "not the primary's machine");
const NO_ROOM = new TransportError("/ram", "write", "no room", { party: "replica" });

Deno.test("a first check that fails is the sender's refusal, and this end's error", async () => {
  const gate = new NotedGate(() => true, () => Promise.reject(MISFIT));
  await using stage = await Stage.open({ gate });
  // Both ends share a loop here: which of the two is told of which error is chance.
  const waits = [stage.receiver.receive(never), stage.send(fullStream(1))];
  const ended = await Promise.allSettled(waits);
  const errors = ended.map((end) => end.status === "rejected" ? end.reason : end.value);
  if (!errors.includes(MISFIT)) await assert.rejects(stage.receiver.receive(never), MISFIT);
  const refused = errors.find((error) => error instanceof WireError);
  assert.match(`${refused}`, /the receiver refused transaction 1: .*not the primary's machine/);
});

for (
  const [what, error, reason] of [
    ["a shape that is not loaded", MISFIT, /refused transaction 2: .*not the primary's machine/],
    ["no room", NO_ROOM, /refused transaction 2: .*no room \(storage\)/],
  ] as readonly (readonly [string, KemariError, RegExp])[]
) {
  Deno.test(`${what}: refused, and the replica stays what was acknowledged`, async () => {
    const gate = new NotedGate((n) => n === 2, () => Promise.reject(error));
    await using stage = await Stage.open({ gate, onLoss: "activate" });
    await assert.rejects(
      sendOn(stage, concat(fullStream(1), checkpoint(5), checkpoint(6), checkpoint(7))),
      (error) => error instanceof WireError && reason.test(error.message),
    );
    assert.equal(stage.receiver.replica.committed, 1);
    await stage.quiet();
    assert.equal(stage.receiver.state, "waiting", "no loss: the sender lives");
    assert.deepEqual(gate.notes, ["check"]);
  });
}
