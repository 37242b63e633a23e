/** A sender that leaves in the middle of something: the secondary hears it, and starts nothing. */
import assert from "node:assert/strict";
import { loadStream } from "../../lab/recording/streams.ts";
import { OutputQueue } from "../system/channel.ts";
import { cString, libc } from "../system/libc.ts";
import type { Watch } from "../system/reactor.ts";
import { compressionOf } from "./compression.ts";
import type { SenderLinkOptions } from "./link_options.ts";
import { socketConnection } from "./peer.ts";
import { SenderLink } from "./sender_link.ts";
import { Stage, tinyStream } from "./testing/link_stage.ts";
import { O_CLOEXEC, O_NONBLOCK } from "../system/linux.ts";
import { never } from "../system/never.ts";

const OPTIONS = {
  commit: "async",
  maxInFlightBytes: 2 ** 26,
  heartbeatMs: 200,
  graceMs: 2000,
  software: "test",
} as const;
const STEP_BYTES = 4096;

for (const compress of ["delta", "zstd"] as const) {
  Deno.test(`LEAVE gets out while a checkpoint is held (${compress})`, async () => {
    await using stage = await Stage.open({ onLoss: "activate" });
    const pipe = new Int32Array(2);
    libc().pipe2(new Uint8Array(pipe.buffer), O_NONBLOCK | O_CLOEXEC);
    const [input, output] = pipe;
    const stream = loadStream("colo-11.1-dirty");
    const queue = new OutputQueue(output, "QEMU");
    const peer = socketConnection(await stage.connect(), "the socket");
    const compression = compressionOf({ compress, deltaCacheBytes: 2 ** 24 });
    const link = new SenderLink(stage.reactor, peer, { ...OPTIONS, compression, stream: "colo" });
    link.attach({ input, output: -1, name: "QEMU" });
    const { counters } = link.primary;
    for (let at = 0; at < stream.length; at += STEP_BYTES) {
      queue.push([stream.subarray(at, at + STEP_BYTES)]);
      await stage.reactor.run(() => queue.flush(), never);
      await stage.reactor.sleep(link.inFlight + counters.committed > 0 ? 2 : 0, never);
      if (counters.committed > 0 && link.primary.holding) break;
    }
    assert.ok(link.primary.holding, "in the middle of a checkpoint");
    assert.equal(await link.leave("vm-ended", "host-signal"), true);
    link.close();
    await stage.quiet();
    // What was held of the next one is cancelled.
    const { committed } = stage.receiver.replica;
    assert.deepEqual([stage.receiver.state, committed], ["waiting", link.transaction]);
    assert.match(stage.receiver.lastLoss!, /shut down at the primary \(host-signal\)/);
    for (const fd of pipe) libc().close(fd);
  });
}

Deno.test("digests that come behind LEAVE begin nothing", async () => {
  await using stage = await Stage.open({ onLoss: "activate" });
  const file = `${stage.folder}/stream`;
  Deno.writeFileSync(file, tinyStream(1));
  const options = { ...OPTIONS, stream: "snapshots" } as const;
  const first = await linkTo(stage, file, options);
  await stage.reactor.run(() => first.link.primary.counters.committed === 1, never);
  assert.equal(await first.link.leave(), true);
  first.end();
  await stage.quiet();
  // The same VM again: what the replica has of it is asked for first.
  const { watch, every } = stage.reactor;
  const watches: Watch[] = [];
  stage.reactor.watch = (fd, handlers) => {
    watches.push(watch.call(stage.reactor, fd, handlers));
    return watches.at(-1)!;
  };
  stage.reactor.every = () => () => {};
  const { link, end } = await linkTo(stage, file, options);
  Object.assign(stage.reactor, { watch, every });
  await stage.reactor.run(() => link.ready, never);
  const hello = link.sent.framing;
  await stage.reactor.run(() => link.sent.framing > hello, never);
  // The answer lies in the socket when LEAVE is said.
  watches[0].want(false, false);
  await stage.reactor.sleep(200, never);
  assert.equal(await link.leave(), true);
  end();
  await stage.quiet();
  assert.equal(stage.receiver.state, "waiting");
});

/** A link that is given a file for QEMU's stream. */
async function linkTo(stage: Stage, file: string, options: SenderLinkOptions) {
  const input = libc().open(cString(file), 0, 0);
  const peer = socketConnection(await stage.connect(), "the socket");
  const link = new SenderLink(stage.reactor, peer, options);
  link.attach({ input, output: -1, name: "QEMU" });
  const end = () => {
    link.close();
    libc().close(input);
  };
  return { link, end };
}
