/** How a protection ends, or does not: a QEMU that hangs, one that dies at work, an interruption. */
import assert from "node:assert/strict";
import { ProtectedPair } from "../../lab/testing/protected_pair.ts";
import { KemariProcess } from "../../lab/program/watched_kemari.ts";
import { QmpClient } from "../vm/qmp_client.ts";
import { delay } from "../system/delay.ts";
import { until } from "../../lab/program/until.ts";

/** A receiver that takes over by itself, and says so by making a file; its VM is nobody's. */
async function eager(pair: ProtectedPair): Promise<KemariProcess> {
  const fence = `touch ${pair.folder}/fenced`;
  const words = ["recv", pair.link, "--control", pair.recvControl, "--on-loss", "activate"];
  const recv = pair.own(
    new KemariProcess([...words, "--fence", fence, "--exec", "cat >/dev/null"]),
  );
  await recv.listening();
  return recv;
}

function wasFenced(pair: ProtectedPair): boolean {
  try {
    Deno.lstatSync(`${pair.folder}/fenced`);
    return true;
  } catch {
    return false;
  }
}

Deno.test("e2e: a QEMU that answers nothing for a while is waited for", async () => {
  await using pair = await ProtectedPair.boot("11.1");
  await eager(pair);
  pair.protect("--sync-interval", "5");
  const { syncs } = await pair.syncs(20);
  Deno.kill(pair.primary.pid, "SIGSTOP");
  await delay(12_000);
  Deno.kill(pair.primary.pid, "SIGCONT");
  await pair.syncs(syncs + 20);
  await pair.assertRunning(pair.primary);
  assert.ok(!wasFenced(pair));
});

for (const atLoss of ["continue", "stop"]) {
  Deno.test(`e2e: interrupted while QEMU answers nothing, protect has its guardian free the VM: ${atLoss}`, async () => {
    await using pair = await ProtectedPair.boot("11.1");
    const recv = await eager(pair);
    const protect = pair.protect("--sync-interval", "5", "--on-secondary-loss", atLoss);
    await pair.syncs(20);
    Deno.kill(pair.primary.pid, "SIGSTOP");
    await delay(1000);
    protect.signal("SIGINT");
    await protect.waitFor(/guardian waits to tell it/, 30_000);
    await recv.waitFor(/the sender has ended the protection/);
    await delay(2000);
    Deno.kill(pair.primary.pid, "SIGCONT");
    // The guardian has its stderr.
    assert.equal((await protect.ended()).code, 130);
    await pair.assertRunning(pair.primary);
    await using qmp = await QmpClient.connect(pair.primary.spareQmpPath);
    await until(async () => {
      const { status } = await qmp.execute("query-migrate") as { status: string };
      return status !== "colo";
    }, "COLO to end");
    assert.ok(!wasFenced(pair));
  });
}

Deno.test("e2e: a QEMU that dies while it is asked something is a loss", async () => {
  await using pair = await ProtectedPair.boot("7.2");
  const recv = await eager(pair);
  const protect = pair.protect("--sync-interval", "1s");
  await pair.syncs(3);
  // Most of a round is rest; the next command then waits for its answer.
  Deno.kill(pair.primary.pid, "SIGSTOP");
  await delay(2500);
  await pair.primary.kill9();
  assert.equal((await protect.ended()).code, 4);
  await recv.waitFor(/primary lost/);
  await until(() => wasFenced(pair), "the takeover");
});

Deno.test("e2e: who interrupts protect wants no takeover, whatever is to happen at a loss", async () => {
  await using pair = await ProtectedPair.boot("11.1");
  const recv = await eager(pair);
  const protect = pair.protect("--sync-interval", "20", "--on-secondary-loss", "stop");
  await pair.syncs(10);
  protect.signal("SIGINT");
  assert.equal((await protect.ended()).code, 130);
  await recv.waitFor(/the sender has ended the protection/);
  await pair.assertRunning(pair.primary);
  assert.ok(!wasFenced(pair));
});

Deno.test("e2e: an interruption that the secondary does not hear of is a loss, where the VM is to stop then", async () => {
  await using pair = await ProtectedPair.boot("11.1");
  const recv = await eager(pair);
  const protect = pair.protect("--sync-interval", "20", "--on-secondary-loss", "stop");
  await pair.syncs(10);
  recv.signal("SIGSTOP");
  protect.signal("SIGINT");
  assert.equal((await protect.ended()).code, 130);
  await using qmp = await QmpClient.connect(pair.primary.spareQmpPath);
  const { status } = await qmp.execute("query-status") as { status: string };
  assert.equal(status, "paused");
  recv.signal("SIGCONT");
});
