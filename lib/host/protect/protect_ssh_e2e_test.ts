/** A VM that is protected by ssh, with a real sshd. */
import assert from "node:assert/strict";
import { BarePair } from "../../lab/testing/bare_pair.ts";
import { failover } from "../../lab/testing/kemari_pair.ts";
import { SshHost } from "../../lab/testing/ssh_host.ts";
import { until } from "../../lab/program/until.ts";

const BARE = { accelerator: "tcg", timer: "apic" } as const;

/** A pair whose sender comes by ssh. */
async function bySsh(host: SshHost, ...options: readonly string[]): Promise<BarePair> {
  const pair = await BarePair.boot("11.1", BARE);
  pair.listen = "0.0.0.0:0";
  pair.target = [`ssh:far:${pair.recvControl}`, "--ssh", host.ssh, ...options];
  return pair;
}

/** The ssh of the session that there is. */
function sshOf(host: SshHost): number[] {
  return host.processes.filter((line) => line.includes("ssh_config -T"))
    .filter((line) => !line.includes(" protect ")).map((line) => Number(line.split(" ")[0]));
}

const logins = (host: SshHost) => host.log.match(/Accepted publickey/g)?.length ?? 0;

Deno.test("e2e: a VM that is protected by ssh has a new key for each session, and is taken over", async () => {
  await using host = await SshHost.open();
  await using pair = await bySsh(host);
  const recv = await pair.recv();
  await pair.secondary();
  const protect = pair.protect("--sync-interval", "20");
  await pair.syncs(20);
  assert.deepEqual(sshOf(host), [], "ssh has ended");
  const first = (await pair.receiverStatus()).encryption;
  recv.signal("SIGKILL");
  await pair.senderIs("unprotected");
  await until(() => logins(host) > 3, "some tries");
  await pair.recv();
  const secondary = await pair.secondary();
  await pair.senderStatus(({ state, syncs }) => state === "synchronizing" && syncs >= 10);
  const second = (await pair.receiverStatus()).encryption;
  for (const encryption of [first, second]) {
    assert.match(encryption?.peer ?? "", /^session-[0-9a-f]{16}$/);
  }
  assert.notEqual(first?.peer, second?.peer);
  await pair.primary.powerCut();
  const { code, stderr } = await protect.ended();
  assert.equal(code, 4, stderr);
  // However often it was tried.
  assert.equal(stderr.match(/refused there: .*; trying again/g)?.length, 1, stderr);
  await failover(pair);
  await pair.assertTakenOver(secondary);
});

Deno.test("e2e: what ends a service does not end its ssh first: a protection that is interrupted is no loss", async () => {
  await using host = await SshHost.open();
  await using pair = await bySsh(host, "--over-ssh");
  const recv = await pair.recv("--on-loss", "activate", "--fence", "none");
  await pair.secondary();
  const protect = pair.protect("--sync-interval", "20");
  await pair.syncs(10);
  for (const { encryption } of [await pair.receiverStatus(), await pair.syncs(10)]) {
    assert.equal(encryption?.kind, "ssh");
  }
  const pids = sshOf(host);
  assert.equal(pids.length, 1);
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) Deno.kill(pids[0], signal);
  protect.signal("SIGTERM");
  assert.equal((await protect.ended()).code, 130);
  await recv.waitFor(/goes on at the primary|ended the protection|left/);
  await pair.receiverStatus(({ state }) => state === "waiting");
  await pair.assertRunning(pair.primary);
  await until(() => host.processes.length === 0, "ssh is left");
});

Deno.test("e2e: an ssh that is killed, or stands still, is a loss; another takes its place", async () => {
  await using host = await SshHost.open();
  await using pair = await bySsh(host, "--over-ssh");
  await pair.recv();
  const secondary = await pair.secondary();
  const protect = pair.protect("--sync-interval", "20");
  await pair.syncs(10);
  let sessions = 1;
  for (const signal of ["SIGKILL", "SIGSTOP"] as const) {
    const [pid] = sshOf(host);
    Deno.kill(pid, signal);
    await until(() => logins(host) > sessions, "another login");
    sessions = logins(host);
    await pair.senderStatus(({ state }) => state === "synchronizing");
    await pair.assertRunning(pair.primary);
    assert.ok(!sshOf(host).includes(pid), "the old one is gone");
  }
  await pair.primary.powerCut();
  assert.equal((await protect.ended()).code, 4);
  await failover(pair);
  await pair.assertTakenOver(secondary);
  await until(() => host.processes.length === 0, "ssh is left");
});
