/**
 * `deno task fuzz [--seconds N] [--seed N]`: made-up sessions with both ends, and with a real
 * `kemari recv`, until the time is over or Ctrl-C. What breaks is told with the seed that shows it again.
 */
import { parseArgs } from "node:util";
import { FuzzedPrimary } from "../../replica/testing/fuzz_primary.ts";
import { FuzzedSecondary } from "../../replica/testing/fuzz_secondary.ts";
import { FuzzedRecv } from "./fuzzed_recv.ts";

/** Sessions of one kind with one seed; after a failure so many at the most are to be done again. */
const BATCH = 200;
const RECV_BATCH = 50;

interface Total {
  sessions: number;
  frames: number;
}

/** One seed with each of the ends. */
async function round(seed: number, total: Total): Promise<void> {
  for (const end of [FuzzedSecondary, FuzzedPrimary]) {
    const fuzzed = await end.make(seed);
    for (let i = 0; i < BATCH; i++) fuzzed.session();
    total.sessions += fuzzed.counts.sessions;
    total.frames += fuzzed.counts.frames;
  }
  await using recv = await FuzzedRecv.start(seed);
  for (let i = 0; i < RECV_BATCH; i++) await recv.session();
  total.sessions += recv.sessions;
  total.frames += recv.frames;
}

const { values } = parseArgs({
  args: Deno.args,
  options: { seconds: { type: "string", default: "3600" }, seed: { type: "string" } },
});
const seconds = Number(values.seconds);
const first = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
if (!(seconds > 0) || !Number.isInteger(first)) {
  console.error("fuzz: --seconds and --seed want numbers");
  Deno.exit(2);
}
const begunAt = performance.now();
const total: Total = { sessions: 0, frames: 0 };
let seed = first;
let isEnded = false;
Deno.addSignalListener("SIGINT", () => isEnded = true);
while (!isEnded && performance.now() - begunAt < seconds * 1000) {
  try {
    await round(seed, total);
  } catch (error) {
    console.error(error);
    console.error(`\nshown again by: deno task fuzz --seconds 1 --seed ${seed}`);
    Deno.exit(1);
  }
  const passed = ((performance.now() - begunAt) / 1000).toFixed(0);
  console.log(`seed ${seed}: ok; ${total.sessions} sessions, ${total.frames} frames, ${passed} s`);
  seed++;
}
