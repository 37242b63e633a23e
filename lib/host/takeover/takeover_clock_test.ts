import assert from "node:assert/strict";
import { formatTakeover, TakeoverClock } from "./takeover_clock.ts";

Deno.test("a takeover tells when each phase was over, counted from the decision", () => {
  const detectedAt = performance.now();
  const takeover = new TakeoverClock("loss", 7, detectedAt);
  takeover.over("fenced", detectedAt + 2);
  takeover.over("applied", detectedAt + 2.5);
  assert.equal(takeover.status.loadedMs, null);
  assert.equal(formatTakeover(takeover.status), "after loss: fenced 2.0, applied 2.5 ms");
  takeover.mode = "warm";
  takeover.over("loaded", detectedAt + 12);
  takeover.over("running", detectedAt + 13.4);
  takeover.over("firstPacket", detectedAt + 40);
  takeover.over("firstPacket", detectedAt + 50);
  assert.equal(
    formatTakeover(takeover.status),
    "warm, after loss: fenced 2.0, applied 2.5, loaded 12, running 13, first packet 40 ms",
  );
  const { cause, transaction, detectedAt: when } = takeover.status;
  assert.deepEqual([cause, transaction], ["loss", 7]);
  assert.ok(Math.abs(Date.parse(when) - Date.now()) < 60_000);
});

Deno.test("phases that are gone through again are told anew", () => {
  const takeover = new TakeoverClock("failover", 1, 100);
  takeover.over("fenced", 105);
  takeover.again("fenced", "applied");
  assert.equal(takeover.status.fencedMs, null);
  takeover.over("fenced", 109);
  assert.equal(takeover.status.fencedMs, 9);
});
