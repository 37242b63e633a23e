import assert from "node:assert/strict";
import { TappedPair } from "../../lab/testing/tapped_pair.ts";

const NOISE_BYTES = 384 * 2 ** 20;

Deno.test("e2e: a copy cut off by the secondary's death goes on with the rest, and is equal", async () => {
  await using pair = await TappedPair.makeWith("replicated", NOISE_BYTES);
  const disk = async () => (await pair.syncs(0)).taps.disks[0];
  // The first copy was made while the VM booted. Another one is cut off half-way.
  await pair.copied();
  await pair.restartRecv(true);
  const isUnderWay = ({ sentBytes }: { sentBytes: number }) =>
    sentBytes > NOISE_BYTES / 4 && sentBytes < NOISE_BYTES;
  let first = await disk();
  const until = performance.now() + 60_000;
  while (!isUnderWay(first.resync) && performance.now() < until) first = await disk();
  assert.ok(first.copied < 1, "the copy must not be over before it is cut off");
  await pair.restartRecv();
  await pair.copied();
  const second = await disk();
  const { sentBytes, equalBytes, doneBytes } = second.resync;
  console.log(`cut off after ${first.resync.sentBytes} bytes, then ${sentBytes} sent`);
  assert.equal(doneBytes, second.sizeBytes);
  // What was in a transaction that the secondary did not live to commit is sent again.
  assert.ok(sentBytes < NOISE_BYTES && sentBytes > 0, `${sentBytes}`);
  assert.ok(equalBytes > first.resync.sentBytes / 2, `${equalBytes}`);
  await pair.connect();
  await pair.moreAnswers(10);
  await pair.killPrimary();
  await pair.moreAnswers(10);
  await pair.disconnect();
  await pair.assertNothingLost(pair.secondary);
  await pair.secondary.run("umount /mnt", { timeoutMs: 30_000 });
  // The guest has no business behind its file system.
  const compared = await new Deno.Command("cmp", {
    args: ["-i", String(32 * 2 ** 20), pair.image("primary"), pair.image("secondary")],
  }).output();
  assert.equal(compared.code, 0, new TextDecoder().decode(compared.stdout));
  const fsck = await new Deno.Command("e2fsck", { args: ["-fn", pair.image("secondary")] })
    .output();
  assert.equal(fsck.code, 0, new TextDecoder().decode(fsck.stdout));
});
