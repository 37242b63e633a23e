/** A `kemari send` that stood still for longer than its secondary waits: it was taken for dead. */
import assert from "node:assert/strict";
import { BarePair } from "../lab/testing/bare_pair.ts";
import { EagerSecondary } from "../lab/testing/eager_secondary.ts";
import { FROM_SOURCE } from "../lab/program/kemari_process.ts";
import { migrateStopped } from "../lab/vms/stopped_migration.ts";
import { QmpClient } from "./vm/qmp_client.ts";
import { until } from "../lab/program/until.ts";

/** Every process that was started with these words. */
function pidsOf(words: string): number[] {
  return [...Deno.readDirSync("/proc")].map(({ name }) => Number(name)).filter((pid) => {
    try {
      const command = Deno.readTextFileSync(`/proc/${pid}/cmdline`).replaceAll("\0", " ");
      return pid !== Deno.pid && command.includes(words);
    } catch {
      return false;
    }
  });
}

Deno.test("e2e: given up while it stood still, kemari send leaves its VM stopped", async () => {
  await using pair = await BarePair.boot("11.1", { accelerator: "tcg", timer: "apic" });
  const secondary = await EagerSecondary.start(pair);
  await using qmp = await QmpClient.connect(pair.primary.qmpPath);
  await qmp.execute("migrate-set-capabilities", {
    capabilities: ["return-path", "x-colo"].map((capability) => ({ capability, state: true })),
  });
  await qmp.execute("migrate-set-parameters", { "x-checkpoint-delay": 20 });
  const words = `send ${pair.link} --control ${pair.sendControl}`;
  const monitor = `--qmp ${pair.primary.spareQmpPath}`;
  const log = `${pair.folder}/log`;
  await migrateStopped(qmp, `exec:exec ${FROM_SOURCE.join(" ")} ${words} ${monitor} 2> ${log}`);
  await pair.syncs(20);
  const pids = pidsOf(words);
  assert.ok(pids.length > 0);
  for (const pid of pids) Deno.kill(pid, "SIGSTOP");
  await secondary.untilFenced();
  for (const pid of pids) Deno.kill(pid, "SIGCONT");
  await until(() => /the VM is \w+, unprotected/.test(Deno.readTextFileSync(log)), "its word");
  const { status } = await qmp.execute("query-status") as { status: string };
  assert.equal(status, "paused", Deno.readTextFileSync(log));
});
