import assert from "node:assert/strict";
import type { MarkedDisk } from "../image/image_marks.ts";
import { readSome } from "../system/channel.ts";
import { openSocketPair } from "../system/descriptor_passing.ts";
import { libc } from "../system/libc.ts";
import { never } from "../system/never.ts";
import { openLink } from "./open_link.ts";
import { socketConnection } from "./peer_connection.ts";
import { Stage } from "./testing/link_stage.ts";

const OPTIONS = {
  commit: "async",
  stream: "auto",
  maxInFlightBytes: 2 ** 26,
  heartbeatMs: 200,
  graceMs: 2000,
  software: "test",
} as const;

/** A secondary, and an image of the primary's in a folder of its own. */
async function scene() {
  const stage = await Stage.open();
  const folder = `${stage.folder}/images`;
  await Deno.mkdir(folder);
  const image: MarkedDisk = { name: "d", path: `${folder}/image`, mode: "replicated" };
  await Deno.writeFile(image.path, new Uint8Array(4096));
  const connect = async () => socketConnection(await stage.connect(), "the socket");
  const inFolder = () => [...Deno.readDirSync(folder)].map(({ name }) => name);
  return { stage, image, connect, inFolder };
}

Deno.test("images bear a mark until the secondary has looked", async () => {
  const { stage, image, connect, inFolder } = await scene();
  await using _ = stage;
  const link = await openLink(stage.reactor, await connect(), OPTIONS, [image], never);
  assert.equal(inFolder().length, 2);
  await stage.reactor.run(() => link.ready, never);
  link.close();
  await link.unmark();
  assert.deepEqual(inFolder(), ["image"]);
  await stage.quiet();
});

Deno.test("a session that is interrupted while its images are marked leaves neither mark nor connection", async () => {
  const { stage, image, inFolder } = await scene();
  await using _ = stage;
  const { ours, theirs } = openSocketPair("the socket");
  const peer = socketConnection(theirs, "the socket");
  const interruption = new Error("interrupted");
  const opening = openLink(stage.reactor, peer, OPTIONS, [image], AbortSignal.abort(interruption));
  await assert.rejects(opening, interruption);
  assert.deepEqual(inFolder(), ["image"]);
  assert.equal(readSome(ours, new Uint8Array(1), "ours"), 0, "the connection has ended");
  libc().close(ours);
});

Deno.test("a link that is closed before its secondary has looked leaves no mark", async () => {
  const { stage, image, connect, inFolder } = await scene();
  await using _ = stage;
  const link = await openLink(stage.reactor, await connect(), OPTIONS, [image], never);
  link.close();
  await link.unmark();
  assert.deepEqual(inFolder(), ["image"]);
});
