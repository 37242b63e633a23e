/** Signals to `kemari protect` and to its guardian: a service that is stopped signals both. */
import assert from "node:assert/strict";
import { BarePair } from "../../lab/testing/bare_pair.ts";
import { guardianPids } from "../../lab/testing/guardian_pids.ts";
import { KemariProcess } from "../../lab/program/kemari_process.ts";
import { QmpClient } from "../vm/qmp_client.ts";
import { delay } from "../system/delay.ts";
import { until } from "../../lab/program/until.ts";

async function protectedPair() {
  const pair = await BarePair.boot("11.1", { accelerator: "tcg", timer: "apic" });
  const words = ["recv", pair.link, "--control", pair.recvControl, "--exec", "cat >/dev/null"];
  const recv = pair.own(new KemariProcess(words));
  await recv.listening();
  const protect = pair.protect("--sync-interval", "20");
  await pair.syncs(5);
  await until(() => guardianPids(pair.primary).some(listens), "the guardian to be there");
  return { pair, recv, protect };
}

/** Whether a process has got as far as to listen for signals. */
function listens(pid: number): boolean {
  const caught = /^SigCgt:\s*([0-9a-f]+)$/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`))![1];
  return (BigInt(`0x${caught}`) >> 14n & 1n) === 1n;
}

Deno.test("e2e: a guardian outlives the signals that end its protect, and frees a VM that answers late", async () => {
  const { pair, protect } = await protectedPair();
  await using _ = pair;
  const [guardian] = guardianPids(pair.primary);
  Deno.kill(pair.primary.pid, "SIGSTOP");
  try {
    const signalledAt = performance.now();
    // As systemctl stop does: both at once, and again.
    for (const signal of ["SIGTERM", "SIGHUP", "SIGINT", "SIGTERM"] as const) {
      Deno.kill(guardian, signal);
    }
    protect.signal("SIGTERM");
    await protect.waitFor(/guardian waits to tell it/, 30_000);
    // A command that winds up has five seconds, a guardian has not.
    await delay(signalledAt + 6000 - performance.now());
    assert.deepEqual(guardianPids(pair.primary), [guardian]);
  } finally {
    Deno.kill(pair.primary.pid, "SIGCONT");
  }
  await pair.assertRunning(pair.primary);
  await using qmp = await QmpClient.connect(pair.primary.spareQmpPath);
  await until(async () => {
    const { status } = await qmp.execute("query-migrate") as { status: string };
    return status !== "colo";
  }, "COLO to end");
  await until(() => guardianPids(pair.primary).length === 0, "the guardian to end");
});

Deno.test("e2e: a guardian that is killed is followed by another, which acts when protect is killed", async () => {
  const { pair, protect } = await protectedPair();
  await using _ = pair;
  const [first] = guardianPids(pair.primary);
  Deno.kill(first, "SIGKILL");
  await protect.waitFor(/the guardian has ended \(SIGKILL\): another one is started/);
  await until(
    () => guardianPids(pair.primary).length === 1 && guardianPids(pair.primary)[0] !== first,
    "another one",
  );
  protect.signal("SIGKILL");
  await pair.assertRunning(pair.primary);
  await until(() => guardianPids(pair.primary).length === 0, "the guardian to end");
});

Deno.test("e2e: SIGUSR1 and SIGUSR2, which log rotation may send, end nothing", async () => {
  const { pair, recv, protect } = await protectedPair();
  await using _ = pair;
  const [guardian] = guardianPids(pair.primary);
  for (const signal of ["SIGUSR1", "SIGUSR2"] as const) {
    for (const pid of [protect.pid, recv.pid, guardian]) Deno.kill(pid, signal);
  }
  const { syncs } = await pair.syncs(1);
  await pair.syncs(syncs + 20);
  assert.deepEqual(guardianPids(pair.primary), [guardian]);
  await pair.receiverStatus(({ state }) => state === "receiving");
});
