/** For tests: `kemari drill` as a user runs it, which must hold. */
import assert from "node:assert/strict";
import type { DrillReport } from "../../drill/drill.ts";
import { netLabMissing } from "../../lab/network/net_lab.ts";
import { KemariProcess } from "../../lab/program/watched_kemari.ts";

/** Runs a drill that must hold. @returns Its report, and what it said meanwhile. */
export async function runDrill(
  ...options: string[]
): Promise<DrillReport & { readonly said: string }> {
  await using drill = new KemariProcess(["drill", "--json", ...options]);
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
