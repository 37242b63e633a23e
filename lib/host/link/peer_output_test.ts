import assert from "node:assert/strict";
import { openSocketPair } from "../system/descriptor_passing.ts";
import { readSome } from "../system/channel.ts";
import { libc } from "../system/libc.ts";
import { socketConnection } from "./peer_connection.ts";
import type { PeerInput } from "./peer_input.ts";
import { PeerOutput } from "./peer_output.ts";

/** An output, and how many bytes its peer has got since the last look. */
function connected(): { output: PeerOutput; got: () => number; close: () => void } {
  const { ours, theirs } = openSocketPair("test");
  const { transport } = socketConnection(theirs, "peer");
  const output = new PeerOutput(transport, { takeLastWords: () => {} } as unknown as PeerInput);
  const buffer = new Uint8Array(1 << 20);
  return {
    output,
    got: () => readSome(ours, buffer, "test") ?? 0,
    close: () => [ours, theirs].forEach((fd) => libc().close(fd)),
  };
}

Deno.test("what there is for the peer waits while a small checkpoint is being read, and not longer", () => {
  const { output, got, close } = connected();
  output.push([new Uint8Array(53)]);
  assert.equal(output.flush(performance.now()), false);
  assert.deepEqual([got(), output.pendingBytes, output.wantsRoom], [0, 53, false]);
  output.push([new Uint8Array(20)]);
  assert.equal(output.flush(), true);
  assert.deepEqual([got(), output.pendingBytes], [73, 0]);
  close();
});

Deno.test("a checkpoint that is large, or takes long to come, does not keep the peer waiting", () => {
  const { output, got, close } = connected();
  output.push([new Uint8Array(53)]);
  assert.equal(output.flush(performance.now() - 1000), true);
  assert.equal(got(), 53);
  output.push([new Uint8Array(128 * 1024)]);
  output.flush(performance.now());
  assert.ok(got() > 0);
  close();
});
