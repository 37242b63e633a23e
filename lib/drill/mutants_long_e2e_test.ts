import assert from "node:assert/strict";
import { ensureGuest } from "../lab/guest/guest.ts";
import { netLabMissing } from "../lab/network/net_lab.ts";
import { ensureQemu } from "../lab/provision/qemu.ts";
import { FROM_SOURCE } from "../lab/program/kemari_process.ts";
import { BootedVms } from "./booted_vms.ts";
import type { Fault } from "./plan.ts";
import { SeededRandom } from "./seeded_random.ts";
import { rehearseFault } from "./rehearse_fault.ts";
import type { DrillCheck } from "./report.ts";
import { never } from "../host/system/never.ts";

const missing = await netLabMissing();
const MUTANT = new URL("../lab/testing/mutant.ts", import.meta.url);
const booted = new BootedVms(never);
Deno.test.afterAll(() => booted[Symbol.asyncDispose]());
const KEPT = /everything of this run is kept in (.*)$/;

/** Rehearses a fault on a kemari that breaks a promise. @returns What did not hold, if anything. */
async function failures(mutant: string, fault: Fault, seed: number): Promise<DrillCheck[]> {
  const said: string[] = [];
  const runs = await rehearseFault(1, { ...CASE, fault }, {
    qemu: await ensureQemu("11.1"),
    guests: { cloud: await ensureGuest({ kernel: "cloud" }) },
    kemari: FROM_SOURCE.flatMap((word) =>
      word === "run" ? [word, "--preload", `${MUTANT}?breaks=${mutant}`] : [word]
    ),
    settings: { ...SETTINGS, faults: [fault] },
    random: new SeededRandom(seed),
    narrate: (line) => said.push(line),
    booted,
    signal: never,
    // A machine that does much else gets more time with each try.
    limitMs: LIMIT_MS * seed,
  });
  // A run that fails keeps its folder, for whoever is to find out why.
  const kept = said.flatMap((line) => KEPT.exec(line)?.[1] ?? []);
  const failed = runs.flatMap(({ checks }) => checks.filter(({ held }) => !held));
  if (failed.length === 0) return [];
  assert.equal(kept.length, 1, said.join("\n"));
  const evidence = await evidenceIn(kept[0]);
  await Deno.remove(kept[0], { recursive: true });
  if (failed.some(({ name }) => name === STUCK)) {
    for (const suffix of ["console", "threads", "monitor"]) {
      assert.ok(evidence.has(`primary.${suffix}`) && evidence.has(`secondary.${suffix}`), suffix);
    }
    // A QEMU in the middle of a migration answers nothing; one that has taken over does.
    assert.ok(fault !== "primary" || evidence.has("secondary.ram"));
  }
  return failed;
}

/** Names of the files that tell something. */
async function evidenceIn(folder: string): Promise<Set<string>> {
  const files = new Set<string>();
  for await (const { name, isFile } of Deno.readDir(folder)) {
    if (isFile && Deno.statSync(`${folder}/${name}`).size > 0) files.add(name);
  }
  return files;
}

const MOMENTS = 5;
/** How long anything may take in the first of them. */
const LIMIT_MS = 8000;
/** What fails in a run that gets stuck. */
const STUCK = "the run came to its end";

const CASE = { devices: "virtio", diskMode: "replicated", commit: "async" } as const;
const SETTINGS = {
  form: "client",
  runs: 1,
  seconds: 1,
  memoryMiB: 256,
  fillMiB: 0,
  // Rare enough that much is said between two of them.
  syncIntervalMs: 400,
  devices: ["virtio"],
  diskMode: "replicated",
  commit: "async",
  standby: "cold",
  graceMs: 3000,
  seed: 1,
  phases: ["idle"],
  boot: "once",
  jobs: 1,
  keep: false,
} as const;

/** What a drill says of each: one of these checks, behind the fault. */
const AFTER = /^(answer \d+$|the client kept its connection|the .* acknowledged number)/;
/** A guest that lacks a page may crash, or its shell may, before it is missed in what it answers. */
const AFTER_OR_CRASH = new RegExp(
  `${AFTER.source}|^the guest did not crash$|secondary agent: .*the guest (did not finish|is gone)|` +
    'secondary: ".*" ended with ',
);
const NOTICED: readonly [mutant: string, fault: Fault, by: RegExp][] = [
  ["early-output", "primary", AFTER],
  ["lost-write", "primary", /^the replica's disk was the primary's/],
  ["lost-page", "primary", AFTER_OR_CRASH],
  ["no-stop", "link", /^the primary's stop$/],
];

for (const [mutant, fault, by] of NOTICED) {
  Deno.test({
    name: `e2e: a drill notices ${mutant}${missing ? ` SKIP: ${missing}` : ""}`,
    ignore: missing !== undefined,
    fn: async () => {
      const failed: string[] = [];
      // What is broken does not show in a moment in which nothing is under way.
      for (let seed = 1; !failed.some((text) => by.test(text)); seed++) {
        assert.ok(seed <= MOMENTS, failed.join("\n"));
        const checks = await failures(mutant, fault, seed);
        failed.push(
          ...checks.map(({ name, detail }) =>
            name === STUCK ? detail.replace(/^lab: waited \d+ s in vain: /, "") : name
          ),
        );
      }
    },
  });
}
