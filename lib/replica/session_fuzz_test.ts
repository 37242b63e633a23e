/** Made-up sessions, a few seconds of them; `deno task fuzz` goes on for as long as wanted. */
import assert from "node:assert/strict";
import { FuzzedPrimary } from "./testing/fuzz_primary.ts";
import { FuzzedSecondary } from "./testing/fuzz_secondary.ts";

const SESSIONS = 150;

const ENDS = [["secondary", FuzzedSecondary], ["primary", FuzzedPrimary]] as const;

for (const [name, end] of ENDS) {
  for (const seed of [1, 2, 3]) {
    Deno.test(`a ${name} keeps to the table of frames, whatever comes: seed ${seed}`, async () => {
      const fuzzed = await end.make(seed);
      for (let i = 0; i < SESSIONS; i++) fuzzed.session();
      const { frames, commits, refusals } = fuzzed.counts;
      // It is no fuzzing where everything is refused, or nothing is.
      assert.ok(frames > 10 * SESSIONS, `${frames} frames`);
      assert.ok(commits > SESSIONS / 2, `${commits} commits`);
      assert.ok(refusals > SESSIONS / 4, `${refusals} refusals`);
    });
  }
}
