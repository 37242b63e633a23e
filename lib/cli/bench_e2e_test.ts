import assert from "node:assert/strict";
import { runKemari, spawnKemari } from "../lab/program/run_kemari.ts";
import { decodeBenchReport } from "../report/bench_result.ts";

/** Command lines of all processes that name a path. */
function processesNaming(path: string): string[] {
  return [...Deno.readDirSync("/proc")].flatMap(({ name }) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      const line = Deno.readTextFileSync(`/proc/${name}/cmdline`);
      return line.includes(path) ? [line.replaceAll("\0", " ")] : [];
    } catch {
      return [];
    }
  });
}

Deno.test("bench: JSON, tables, charts and HTML of one run; the run compares with itself", async () => {
  const folder = await Deno.makeTempDir({ prefix: "kemari-bench-test-" });
  try {
    const out = `${folder}/out`;
    const run = await runKemari(["bench", "bitmap", "--quick", "--json", "--out", out]);
    assert.equal(run.code, 0, run.stderr);
    const report = decodeBenchReport(run.stdout);
    assert.deepEqual(decodeBenchReport(await Deno.readTextFile(`${out}/bench.json`)), report);
    assert.deepEqual(report.experiments.map(({ name }) => name), ["bitmap"]);
    assert.match(await Deno.readTextFile(`${out}/bench.md`), /^## bitmap$/m);
    const html = await Deno.readTextFile(`${out}/bench.html`);
    assert.match(html, /<svg [^]*<\/svg>[^]*<table>/);
    assert.match(await Deno.readTextFile(`${out}/bitmap-travelling-4-gb.svg`), /DirtyBitmap/);
    const compared = await runKemari(["bench", "compare", out, out, "--json"]);
    assert.equal(compared.code, 0, compared.stderr);
    const { differences } = JSON.parse(compared.stdout);
    assert.ok(differences.length > 10);
    assert.ok(differences.every(({ verdict }: { verdict: string }) => verdict === "same"));
    const other = { ...report, machine: { ...report.machine, kernel: "0.1" } };
    await Deno.writeTextFile(`${folder}/other.json`, JSON.stringify(other));
    const refused = await runKemari(["bench", "compare", out, `${folder}/other.json`]);
    assert.equal(refused.code, 2);
    assert.match(refused.stderr, /different conditions: kernel/);
    assert.equal((await runKemari(["bench", "compare", out, `${folder}/none`])).code, 4);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("bench: an interrupted run leaves what it had, and no process", async () => {
  const folder = await Deno.makeTempDir({ prefix: "kemari-bench-test-" });
  try {
    const out = `${folder}/out`;
    const child = spawnKemari(
      ["bench", "bitmap", "writev", "stream", "--quick", "--out", out, "--progress", "always"],
      { TMPDIR: folder },
    );
    let said = "";
    let interrupted = false;
    for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) {
      said += text;
      if (interrupted || !/2 of 3, writev/.test(said)) continue;
      interrupted = true;
      child.kill("SIGINT");
    }
    await child.stdout.cancel();
    await child.stdin.close().catch(() => {});
    assert.equal((await child.status).code, 130, said);
    const report = decodeBenchReport(await Deno.readTextFile(`${out}/bench.json`));
    assert.deepEqual(report.experiments.map(({ name }) => name), ["bitmap"]);
    assert.deepEqual(report.missing, [
      { name: "writev", why: "interrupted by SIGINT" },
      { name: "stream", why: "not run" },
    ]);
    assert.match(await Deno.readTextFile(`${out}/bench.html`), /writev: interrupted/);
    assert.deepEqual(processesNaming(folder), []);
    assert.deepEqual([...Deno.readDirSync(folder)].map(({ name }) => name), ["out"]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
