/** QEMU's own settings, which a protection changes and puts back on every way out. */
import assert from "node:assert/strict";
import { sideBySide } from "../../lab/testing/side_by_side.ts";
import { BarePair } from "../../lab/testing/bare_pair.ts";
import {
  AS_SET,
  assertPutBack,
  prepared,
  settingsOf,
} from "../../lab/testing/operator_settings.ts";
import { failover } from "../../lab/testing/kemari_pair.ts";
import { QmpRelay } from "../../lab/testing/qmp_relay.ts";
import { FROM_SOURCE, KemariProcess } from "../../lab/program/kemari_process.ts";
import { QmpClient } from "../vm/qmp_client.ts";
import { until } from "../../lab/program/until.ts";

/** The VM as one stream, by a plain migration of the operator's. */
async function migrateToFile(pair: BarePair, qmp: QmpClient): Promise<string> {
  const file = `${pair.folder}/stream`;
  await qmp.execute("migrate-set-capabilities", {
    capabilities: ["multifd", "return-path"].map((capability) => ({ capability, state: false })),
  });
  await qmp.execute("migrate", { uri: `exec:cat > ${file}` });
  await until(async () => {
    const { status } = await qmp.execute("query-migrate") as { status: string };
    assert.notEqual(status, "failed");
    return status === "completed";
  }, "the migration to be completed");
  await using inspect = new KemariProcess(["inspect", file]);
  const { code, stdout, stderr } = await inspect.ended();
  assert.equal(code, 0, stderr);
  return new TextDecoder().decode(stdout);
}

sideBySide("e2e: QEMU's settings", (scene) => {
  for (const mode of ["colo", "snapshot"] as const) {
    for (const way of ["SIGINT", "SIGKILL", "a lost secondary"] as const) {
      scene(`QEMU's settings are put back behind ${way}: ${mode}`, async () => {
        const { pair, qmp, recv } = await prepared();
        await using _ = pair;
        const protect = pair.protect("--sync-interval", "20", "--mode", mode, "--no-retry");
        await pair.syncs(5);
        assert.notDeepEqual(await settingsOf(qmp), AS_SET);
        if (way === "a lost secondary") recv.signal("SIGKILL");
        else protect.signal(way);
        await protect.ended();
        await assertPutBack(qmp);
        await pair.assertRunning(pair.primary);
        if (way === "SIGINT") {
          assert.match(await migrateToFile(pair, qmp), / VMDESCRIPTION of \d+ /);
        }
      });
    }
  }

  scene("killed between its first setting and COLO, the guardian puts it back", async () => {
    const { pair, qmp } = await prepared();
    await using _ = pair;
    let held = () => {};
    const asked = new Promise<void>((resolve) => held = resolve);
    // QEMU is never told to migrate: kemari waits for that, with the property set.
    await using relay = QmpRelay.open(
      pair.primary.qmpPath,
      { path: `${pair.folder}/relay` },
      (command) => {
        if (command.execute !== "migrate") return undefined;
        held();
        return "silence";
      },
    );
    const words = ["protect", "--qmp", relay.address, pair.link, "--control", pair.sendControl];
    const protect = pair.own(new KemariProcess(words));
    await asked;
    assert.equal((await settingsOf(qmp)).suppressVmdesc, true);
    protect.signal("SIGKILL");
    await protect.ended();
    await assertPutBack(qmp);
    await pair.assertRunning(pair.primary);
  });

  for (
    const [name, refused, warning] of [
      ["it has no such property", "qom-get", /does not have the property suppress-vmdesc/],
      ["it refuses to set it", "qom-set", /describing its state \(QEMU, qom-set: not today\)/],
    ] as const
  ) {
    scene(
      `a QEMU that goes on describing is protected all the same, and that is said: ${name}`,
      async () => {
        const { pair } = await prepared();
        await using _ = pair;
        await using relay = QmpRelay.open(
          pair.primary.qmpPath,
          { path: `${pair.folder}/relay` },
          ({ execute }) => execute === refused ? { error: "not today" } : undefined,
        );
        const words = ["protect", "--qmp", relay.address, pair.link, "--control", pair.sendControl];
        const protect = pair.own(new KemariProcess([...words, "--sync-interval", "20"]));
        await pair.syncs(20);
        assert.match(protect.stderr, warning);
      },
    );
  }

  for (const suppress of [true, false]) {
    const what = suppress
      ? "describes nothing, by its silence"
      : "hoards descriptions, and says so";
    scene(`kemari send without QMP takes a QEMU that ${what}`, async () => {
      await using pair = await BarePair.boot("11.1", {
        accelerator: "tcg",
        timer: "apic",
        machine: suppress ? "pc,suppress-vmdesc=on" : "pc",
      });
      await pair.recv();
      const secondary = await pair.secondary();
      await using qmp = await QmpClient.connect(pair.primary.qmpPath);
      await qmp.execute("migrate-set-capabilities", {
        capabilities: ["return-path", "x-colo"].map((capability) => ({ capability, state: true })),
      });
      await qmp.execute("migrate-set-parameters", { "x-checkpoint-delay": 20 });
      const log = `${pair.folder}/log`;
      const send = [...FROM_SOURCE, "send", pair.link, "--control", pair.sendControl];
      await qmp.execute("stop");
      await qmp.execute("migrate", { uri: `exec:exec ${send.join(" ")} 2> ${log}` });
      await pair.syncs(20);
      const hint = /start the VM with -machine …,suppress-vmdesc=on/g;
      assert.equal((await Deno.readTextFile(log)).match(hint)?.length ?? 0, suppress ? 0 : 1);
      await pair.primary.powerCut();
      await pair.receiverStatus(({ state }) => state === "waiting");
      await failover(pair);
      await pair.assertTakenOver(secondary);
    });
  }

  scene("a plain stream of a machine that describes nothing is handed over", async () => {
    for (const returnPath of [false, true]) {
      await using pair = await BarePair.boot("11.1", {
        accelerator: "tcg",
        timer: "apic",
        machine: "pc,suppress-vmdesc=on",
      });
      const recv = await pair.recv();
      const secondary = await pair.secondary();
      await using qmp = await QmpClient.connect(pair.primary.qmpPath);
      await qmp.execute("migrate-set-capabilities", {
        capabilities: [{ capability: "return-path", state: returnPath }],
      });
      await qmp.execute("migrate", { uri: `exec:exec ${FROM_SOURCE.join(" ")} send ${pair.link}` });
      const { code, stderr } = await recv.ended(30_000);
      assert.equal(code, 0, stderr);
      assert.match(stderr, /handover/);
      await pair.assertTakenOver(secondary, 0);
    }
  });

  for (const machine of ["pc", "pc,suppress-vmdesc=on"]) {
    scene(`a warm standby takes over a state that nobody has described: ${machine}`, async () => {
      await using pair = await BarePair.boot("11.1", {
        accelerator: "tcg",
        timer: "apic",
        machine,
      });
      const standby = await pair.standby();
      await pair.recvWithStandby(standby.vm);
      const protect = pair.protect("--sync-interval", "20");
      await pair.syncs(20);
      await pair.receiverStatus(({ standby }) => standby?.state === "ready");
      await pair.primary.powerCut();
      await protect.ended();
      await failover(pair);
      await pair.assertTakenOver(standby);
      const { takeover } = await pair.receiverStatus(({ takeover }) => takeover != null);
      assert.equal(takeover!.mode, "warm");
    });
  }
});
