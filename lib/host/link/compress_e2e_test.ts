import assert from "node:assert/strict";
import { sideBySide } from "../../lab/testing/side_by_side.ts";
import { failover, ProtectedPair } from "../../lab/testing/protected_pair.ts";
import type { CompressMode } from "../../control/sender_status.ts";

const MODES: readonly (readonly [CompressMode, readonly string[]])[] = [
  ["zstd", []],
  // Less than the guest dirties: pages come and go.
  ["delta", ["--delta-cache", "1M"]],
  ["auto", ["--commit", "sync"]],
];

sideBySide("e2e: compressed", (scene) => {
  for (const [mode, options] of MODES) {
    scene(`--compress ${mode} ${options.join(" ")}: the guest goes on as it was`, async () => {
      await using pair = await ProtectedPair.boot("11.1");
      const recv = await pair.recv();
      const secondary = await pair.secondary();
      const protect = pair.protect("--sync-interval", "20", "--compress", mode, ...options);
      const { compression, payloadBytes, unchangedPages, wireBytes } = await pair.syncs(60);
      assert.equal(compression.mode, mode);
      assert.ok(compression.packedToBytes > 0, "frames were packed");
      assert.ok(wireBytes < compression.streamBytes, "less travelled than QEMU sent");
      if (mode !== "zstd") {
        assert.ok(compression.deltaPages > 0, "pages travelled as differences");
        assert.ok(unchangedPages > 0, "pages were left out");
        assert.ok(payloadBytes < compression.streamBytes);
      }
      if (mode === "delta") assert.equal(compression.cacheLimitBytes, 2 ** 20);
      await pair.primary.powerCut();
      assert.equal((await protect.ended()).code, 4);
      await failover(pair);
      assert.equal((await recv.ended()).code, 0);
      await pair.assertTakenOver(secondary);
    });
  }

  scene("a snapshot loop with --compress delta: the guest goes on as it was", async () => {
    await using pair = await ProtectedPair.boot("11.1");
    const recv = await pair.recv();
    const secondary = await pair.secondary();
    const protect = pair.protect("--mode", "snapshot", "--compress", "delta");
    const { compression, unchangedPages } = await pair.syncs(6);
    assert.ok(compression.deltaPages > 0, "pages travelled as differences");
    assert.ok(unchangedPages > compression.deltaPages);
    await pair.primary.powerCut();
    assert.equal((await protect.ended()).code, 4);
    await failover(pair);
    assert.equal((await recv.ended()).code, 0);
    await pair.assertTakenOver(secondary, 40);
  });
});
