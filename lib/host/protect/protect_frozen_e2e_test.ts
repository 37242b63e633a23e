/** A protect that stood still for longer than its secondary waits: it was taken for dead. */
import assert from "node:assert/strict";
import { sideBySide } from "../../lab/testing/side_by_side.ts";
import { BarePair } from "../../lab/testing/bare_pair.ts";
import { KemariProcess } from "../../lab/program/kemari_process.ts";
import { QmpClient } from "../vm/qmp_client.ts";
import { until } from "../../lab/program/until.ts";

const MACHINE = { accelerator: "tcg", machine: "q35", timer: "apic", hz: 200, every: 5 } as const;
/** Twice the silence of a busy machine. */
const GRACE = ["--heartbeat", "200ms", "--grace", "2s"];

sideBySide("e2e: an end that stood still for longer than the other waits", (scene) => {
  scene("given up by its secondary, protect asks, and protects again", async () => {
    await using pair = await BarePair.boot("11.1", MACHINE);
    const recv = await pair.recv("--on-loss", "wait", ...GRACE);
    await pair.secondary();
    const protect = pair.protect("--sync-interval", "10", ...GRACE);
    await pair.syncs(20);
    protect.signal("SIGSTOP");
    await recv.waitFor(/sender lost: .*nothing was heard/);
    protect.signal("SIGCONT");
    await protect.waitFor(/may have taken this primary for dead: asking it/);
    await protect.waitFor(/trying again/);
    await pair.receiverStatus(({ state }) => state === "receiving");
    await pair.syncs(5);
    await pair.assertRunning(pair.primary);
  });

  scene("taken over from, protect hears of it before its VM says a word", async () => {
    await using pair = await BarePair.boot("11.1", MACHINE);
    const standby = await pair.standby();
    await pair.recvWithStandby(
      standby.vm,
      ...["--on-loss", "activate", "--fence", "none", ...GRACE],
    );
    const protect = pair.protect("--sync-interval", "10", ...GRACE);
    await pair.syncs(20);
    await pair.receiverStatus((status) => status.standby?.state === "ready");
    protect.signal("SIGSTOP");
    await pair.receiverStatus(({ state }) => state === "active");
    protect.signal("SIGCONT");
    const { code, stderr } = await protect.ended();
    assert.equal(code, 3);
    assert.match(stderr, /the VM is the secondary's by now/);
    await using qmp = await QmpClient.connect(pair.primary.qmpPath);
    const { status } = await qmp.execute("query-status") as { status: string };
    assert.equal(status, "paused", "the primary's VM stands");
    await until(() => pair.counts(standby).length > 3, "the secondary to count");
  });

  scene("a recv takes over from nobody when it wakes", async () => {
    await using pair = await BarePair.boot("11.1", MACHINE);
    const fenced = `${pair.folder}/fenced`;
    const words = ["recv", pair.link, "--control", pair.recvControl, "--on-loss", "activate"];
    const more = ["--fence", `touch ${fenced}`, "--exec", "cat >/dev/null", ...GRACE];
    const recv = pair.own(new KemariProcess([...words, ...more]));
    await recv.listening();
    const protect = pair.protect("--sync-interval", "10", ...GRACE);
    await pair.syncs(20);
    recv.signal("SIGSTOP");
    await protect.waitFor(/secondary lost: .*the VM goes on unprotected/, 30_000);
    await pair.assertRunning(pair.primary);
    recv.signal("SIGCONT");
    // It is protected again: nothing was fenced, and nothing started.
    await protect.waitFor(/connected to [^]*connected to /, 30_000);
    await pair.syncs(5);
    await pair.receiverStatus(({ state, arriving }) => state === "receiving" && !arriving);
    assert.throws(() => Deno.lstatSync(fenced), Deno.errors.NotFound);
    assert.doesNotMatch(recv.stderr, /activated transaction/);
  });
});
