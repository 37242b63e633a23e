/** For tests: an experiment that is interrupted removes what it made. */
import assert from "node:assert/strict";
import { KemariProcess } from "../program/kemari_process.ts";
import { delay } from "../../host/system/delay.ts";

/** How long it goes on after the pattern was seen: into the middle of whatever it does. */
const INTO_IT_MS = 4000;

/** Interrupts a kemari some seconds after it has said something. */
export async function leavesNothing(args: readonly string[], said: RegExp): Promise<void> {
  const temporary = await Deno.makeTempDir({ prefix: "kemari-bench-test-" });
  try {
    await using bench = new KemariProcess(args, { before: `export TMPDIR='${temporary}';` });
    await bench.waitFor(said, 120_000);
    await delay(INTO_IT_MS);
    bench.signal("SIGINT");
    const { code, stderr } = await bench.ended(30_000);
    assert.equal(code, 130, stderr);
    assert.deepEqual([...Deno.readDirSync(temporary)], []);
    assert.deepEqual(namespacesOf(bench.pid), []);
    assert.deepEqual(processesWith(temporary), []);
  } finally {
    await Deno.remove(temporary, { recursive: true });
  }
}

/** The network namespaces that a process has made. */
export function namespacesOf(pid: number): string[] {
  try {
    return [...Deno.readDirSync("/run/netns")].map(({ name }) => name)
      .filter((name) => name.startsWith(`kemari-lab-${pid}-`));
  } catch {
    return [];
  }
}

/** Every child of the interrupted one has inherited its folder for temporary files. */
function processesWith(temporary: string): string[] {
  return [...Deno.readDirSync("/proc")].flatMap(({ name }) => {
    if (!/^\d+$/.test(name) || Number(name) === Deno.pid) return [];
    try {
      if (!Deno.readTextFileSync(`/proc/${name}/environ`).includes(`TMPDIR=${temporary}\0`)) {
        return [];
      }
      return [Deno.readTextFileSync(`/proc/${name}/cmdline`).replaceAll("\0", " ")];
    } catch {
      return [];
    }
  });
}
