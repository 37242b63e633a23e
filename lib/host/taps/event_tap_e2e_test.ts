import assert from "node:assert/strict";
import type { Guest } from "../../lab/testing/protected_pair.ts";
import { TappedPair } from "../../lab/testing/tapped_pair.ts";
import { QmpClient } from "../vm/qmp_client.ts";
import { delay } from "../system/delay.ts";
import { until } from "../../lab/program/until.ts";
import { UNUSED_MS } from "./serve_until_unused.ts";

for (const mode of ["replicated", "shared"] as const) {
  Deno.test(`e2e: a client keeps its connection through the primary's death, ${mode} disk`, async () => {
    await using pair = await TappedPair.make(mode);
    await pair.syncs(5);
    await pair.connect();
    await pair.moreAnswers(30);
    const { taps } = await pair.syncs(1);
    assert.ok(taps.nets.net0.hold.count >= 30, "answers were held until their transaction's ACK");
    assert.ok(taps.diskHold.count > 0, "writes travelled with transactions");
    const before = pair.acked.length;
    await pair.killPrimary();
    await pair.moreAnswers(20);
    assert.ok(pair.acked.length > before);
    await pair.disconnect();
    await pair.assertNothingLost(pair.secondary);
    await pair.secondary.run("umount /mnt", { timeoutMs: 30_000 });
    const fsck = await new Deno.Command("e2fsck", { args: ["-fn", pair.image("secondary")] })
      .output();
    assert.equal(fsck.code, 0, new TextDecoder().decode(fsck.stdout));
    console.log(`${mode}: longest gap ${pair.longestGapMs} ms`);
  });
}

Deno.test("e2e: a client keeps its connection when a warm standby takes over", async () => {
  await using pair = await TappedPair.makeWarm("replicated");
  await pair.syncs(5);
  await pair.receiverStatus(({ standby }) => standby?.state === "ready");
  await pair.connect();
  await pair.moreAnswers(30);
  await pair.killPrimary();
  await pair.moreAnswers(20);
  const { takeover } = await pair.receiverStatus(({ takeover }) => takeover?.firstPacketMs != null);
  assert.equal(takeover?.mode, "warm");
  assert.equal(takeover?.cause, "loss");
  assert.ok(takeover!.firstPacketMs! > takeover!.loadedMs!);
  await pair.disconnect();
  await pair.assertNothingLost(pair.standby);
  console.log(`warm: longest gap ${pair.longestGapMs} ms, ${JSON.stringify(takeover)}`);
});

Deno.test("e2e: a lost secondary does not cost the client its connection, nor the VM its disk", async () => {
  await using pair = await TappedPair.make("shared");
  await pair.syncs(5);
  await pair.connect();
  pair.recv.signal("SIGKILL");
  await pair.moreAnswers(20);
  await pair.disconnect();
  await pair.assertNothingLost(pair.primary);
  // What was held has reached the image: it is what the guest's file system says it is.
  await pair.primary.run("umount /mnt", { timeoutMs: 30_000 });
  const fsck = await new Deno.Command("e2fsck", { args: ["-fn", pair.image("primary")] }).output();
  assert.equal(fsck.code, 0, new TextDecoder().decode(fsck.stdout));
});

Deno.test("e2e: a VM stopped at the loss of its secondary keeps its taps, and goes on when told to", async () => {
  await using pair = await TappedPair.make("shared", "--on-secondary-loss", "stop");
  await pair.syncs(5);
  await pair.connect();
  pair.recv.signal("SIGKILL");
  await pair.protect.waitFor(/the VM is paused[^]*serving the taps on/, 20_000);
  // Longer than taps are kept that nobody uses.
  await delay(UNUSED_MS + 500);
  await using qmp = await QmpClient.connect(pair.primary.spareQmpPath);
  await qmp.execute("cont");
  await pair.moreAnswers(20);
  await pair.disconnect();
  await pair.assertNothingLost(pair.primary);
  await pair.primary.powerCut();
  assert.equal((await pair.protect.ended(20_000)).code, 4);
});

Deno.test("e2e: what the world sent since the last commit reaches the guest all the same, unsent again", async () => {
  await using pair = await TappedPair.make(
    "replicated",
    ...["--sync-on", "none", "--sync-interval", "1s"],
  );
  await pair.syncs(2);
  // Nothing below UDP sends anything twice, and a guest counts what comes for a port without a program.
  const talk = `exec 3>/dev/udp/${pair.lab.guestIp}/9; while read word; do
    echo $word >&3 || echo $word >&3; done 2> /dev/null`;
  const client = pair.lab.command("client", ["bash", "-c", talk], { stdin: "piped" }).spawn();
  const mouth = client.stdin.getWriter();
  const speak = () => mouth.write(new TextEncoder().encode("word\n"));
  const heard = async (vm: Guest) => {
    const { output } = await vm.run("grep ^Udp: /proc/net/snmp", { timeoutMs: 30_000 });
    return Number(output.trim().split("\n")[1].split(" ")[2]);
  };
  await until(async () => {
    // Again, until the guest's answer to ARP has been let go.
    await speak();
    return await heard(pair.primary) > 0;
  }, "the first words at the primary");
  let committed = 0;
  for (let tries = 1;; tries++) {
    // What came in the last epoch but one is forgotten, what came before the last commit may come again.
    const { syncs } = await pair.syncs((await pair.syncs(1)).syncs + 3);
    committed = await heard(pair.primary);
    await speak();
    await until(async () => await heard(pair.primary) === committed + 1, "the last word");
    // On a slow machine the next transaction may be there already.
    if ((await pair.syncs(1)).syncs === syncs) break;
    assert.ok(tries < 30, "the last word is in a transaction each time");
  }
  await pair.killPrimary();
  await pair.receiverStatus(({ takeover }) => takeover?.loadedMs != null);
  await until(async () => await heard(pair.secondary) === committed + 1, "it at the secondary");
  await mouth.close();
  await client.status;
});
