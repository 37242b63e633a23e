import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import type { Replica } from "../lib/replica/secondary/replica.ts";
import { checkpointSeries, GUESTS } from "./checkpoint_series.ts";
import { COMPRESS_MODES, runSeries } from "./compress.ts";

function contentOf(replica: Replica): string {
  const hash = createHash("sha256");
  for (const piece of replica.compose()) hash.update(piece);
  return hash.digest("hex");
}

for (const guest of GUESTS) {
  Deno.test(`bench compress: in every mode the replica of "${guest}" is the same`, () => {
    const series = checkpointSeries(guest, 44);
    const runs = COMPRESS_MODES.map((mode) => runSeries(series, mode));
    const [plain, zstd, delta] = runs;
    for (const run of runs) {
      assert.equal(run.replica.committed, 45);
      assert.equal(contentOf(run.replica), contentOf(plain.replica));
      assert.equal(run.streamBytes, plain.streamBytes);
    }
    assert.ok(plain.wireBytes >= plain.streamBytes);
    assert.ok(zstd.wireBytes < plain.wireBytes);
    assert.ok(delta.wireBytes < plain.wireBytes);
  });
}
