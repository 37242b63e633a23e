/** A recorded COLO session over real sockets, in each way of making less of it. */
import assert from "node:assert/strict";
import { loadStream } from "../../lab/recording/streams.ts";
import { OutputQueue } from "../system/channel.ts";
import { compressionOf } from "./compress_settings.ts";
import type { CompressMode } from "../../control/sender_status.ts";
import { libc } from "../system/libc.ts";
import { contentOf, Stage } from "./testing/link_stage.ts";
import { never } from "../system/never.ts";
import { socketConnection } from "./peer_connection.ts";
import { SenderLink } from "./sender_link.ts";
import { O_CLOEXEC, O_NONBLOCK } from "../system/linux.ts";

const RECORDING = "colo-11.1-dirty";

const CHECKPOINTS = 8;

/** What the replica holds after the recorded stream, which comes through a pipe that stays open. */
async function replicaAfter(compress: CompressMode, commit: "sync" | "async"): Promise<string> {
  await using stage = await Stage.open();
  const fds = new Int32Array(2);
  // O_NONBLOCK | O_CLOEXEC
  libc().pipe2(new Uint8Array(fds.buffer), O_NONBLOCK | O_CLOEXEC);
  const [input, output] = fds;
  const stream = new OutputQueue(output, "QEMU");
  stream.push([loadStream(RECORDING)]);
  const watch = stage.reactor.watch(output, { writable: () => watch.want(false, !stream.flush()) });
  watch.want(false, true);
  const link = new SenderLink(
    stage.reactor,
    socketConnection(await stage.connect(), "the socket"),
    {
      commit,
      compression: compressionOf({ compress, deltaCacheBytes: 2 ** 24 }),
      stream: "colo",
      maxInFlightBytes: 2 ** 26,
      heartbeatMs: 200,
      graceMs: 2000,
      software: "test",
    },
  );
  try {
    link.attach({ input, output: -1, name: "QEMU" });
    await stage.reactor.run(() => link.primary.counters.committed > CHECKPOINTS, never);
    return contentOf(stage.receiver.replica);
  } finally {
    link.close();
    watch.stop();
    libc().close(input);
    libc().close(output);
  }
}

Deno.test("a session over a socket leaves the same replica, whatever is made less of it", async () => {
  const plain = await replicaAfter("none", "async");
  for (const mode of ["zstd", "delta", "auto"] as const) {
    assert.equal(await replicaAfter(mode, "async"), plain, mode);
  }
  assert.equal(await replicaAfter("delta", "sync"), plain, "delta, sync");
});
