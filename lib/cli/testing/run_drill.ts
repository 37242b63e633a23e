/** For tests: `kemari drill` as a user runs it, which must hold. */
import assert from "node:assert/strict";
import type { DrillReport } from "../../drill/drill.ts";
import { netLabMissing } from "../../lab/network/net_lab.ts";
import { PATIENCE } from "../../lab/testing/kemari_pair.ts";
import { namespacesOf } from "../../lab/testing/leaves_nothing.ts";
import { KemariProcess } from "../../lab/program/kemari_process.ts";

/** Runs a drill that must hold. @returns Its report, and what it said meanwhile. */
export async function runDrill(
  ...options: string[]
): Promise<DrillReport & { readonly said: string }> {
  await using drill = new KemariProcess(["drill", "--json", ...PATIENCE, ...options]);
  const { code, stdout, stderr } = await drill.ended(240_000);
  assert.equal(code, 0, stderr);
  const report = JSON.parse(new TextDecoder().decode(stdout)) as DrillReport;
  assert.equal(report.held, true);
  for (const { checks } of report.runs) {
    assert.ok(checks.length >= 2 && checks.every(({ held }) => held), stderr);
  }
  assert.ok(report.runs.at(-1)!.checks.length >= 5, stderr);
  return { ...report, said: stderr };
}

const missing = await netLabMissing();

/** A test that needs a network of its own. */
export function testWithClient(name: string, fn: () => Promise<void>): void {
  Deno.test({
    name: `e2e: ${name}${missing ? ` SKIP: ${missing}` : ""}`,
    ignore: missing !== undefined,
    fn,
  });
}

/**
 * Interrupts a drill, which must leave nothing behind.
 *
 * @param line When it has said so.
 */
export async function interruptDrill(line: RegExp, ...options: string[]): Promise<void> {
  const temporary = await Deno.makeTempDir({ prefix: "kemari-drill-test-" });
  try {
    await using drill = new KemariProcess(["drill", "--seconds", "60", ...options], {
      before: `export TMPDIR='${temporary}';`,
    });
    await drill.waitFor(line, 60_000);
    drill.signal("SIGINT");
    const { code, stderr } = await drill.ended();
    assert.equal(code, 130, stderr);
    assert.deepEqual([...Deno.readDirSync(temporary)].map(({ name }) => name), [], stderr);
    assert.deepEqual(namespacesOf(drill.pid), []);
  } finally {
    await Deno.remove(temporary, { recursive: true });
  }
}
