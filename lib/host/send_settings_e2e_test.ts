/** What `kemari send` changes in a QEMU whose migration is the operator's own. */
import assert from "node:assert/strict";
import { sideBySide } from "../lab/testing/side_by_side.ts";
import { BarePair } from "../lab/testing/bare_pair.ts";
import { FROM_SOURCE, KemariProcess } from "../lab/program/kemari_process.ts";
import { QmpClient } from "./vm/qmp_client.ts";
import { until } from "../lab/program/until.ts";

/** A VM with a NIC, `kemari send` behind its migration, and a secondary that knows of the NIC or not. */
async function sending(knowsNic: boolean) {
  const net = await Deno.makeTempFile({ prefix: "kemari-net-" });
  await Deno.remove(net);
  const pair = await BarePair.boot("11.1", {
    accelerator: "tcg",
    timer: "apic",
    args: [
      ...["-netdev", `stream,id=n0,server=off,addr.type=unix,addr.path=${net},reconnect-ms=50`],
      ...["-device", "e1000,netdev=n0,id=net0,romfile="],
    ],
  });
  const { folder } = pair;
  const out = Deno.listen({ transport: "unix", path: `${folder}/out` });
  pair.own({ [Symbol.asyncDispose]: () => Promise.resolve(out.close()) });
  let passed = 0;
  const count = async (connection: Deno.Conn) => {
    for await (const bytes of connection.readable) passed += bytes.length;
  };
  const accept = async () => {
    for await (const connection of out) count(connection).catch(() => {});
  };
  accept().catch(() => {});
  const there = knowsNic ? ["--net", `net0=unix:${folder}/net,unix:${folder}/out`] : [];
  const words = ["recv", pair.link, "--control", pair.recvControl, "--exec", "cat >/dev/null"];
  const recv = pair.own(new KemariProcess([...words, ...there]));
  await recv.listening();
  const qmp = pair.own(await QmpClient.connect(pair.primary.spareQmpPath));
  await qmp.execute("migrate-set-capabilities", {
    capabilities: ["return-path", "x-colo"].map((capability) => ({ capability, state: true })),
  });
  await qmp.execute("migrate-set-parameters", { "x-checkpoint-delay": 1234 });
  const sender = ["send", pair.link, "--control", pair.sendControl, "--qmp", pair.primary.qmpPath];
  const send = [...FROM_SOURCE, ...sender, "--net", `net0=unix:${net},unix:${folder}/out`];
  await qmp.execute("stop");
  await qmp.execute("migrate", { uri: `exec:exec ${send.join(" ")} 2> ${folder}/log` });
  await pair.syncs(2);
  /** The NIC says something, which is held, and asks for a checkpoint. */
  const announce = () =>
    qmp.execute("announce-self", { initial: 50, max: 50, rounds: 2, step: 50 });
  const delay = async () => {
    const parameters = await qmp.execute("query-migrate-parameters") as Record<string, number>;
    return parameters["x-checkpoint-delay"];
  };
  /** The VM runs on, with its NIC, until it ends; nothing of kemari outlives it. */
  const assertServedOn = async () => {
    await pair.assertRunning(pair.primary);
    assert.match(await Deno.readTextFile(`${folder}/log`), /the VM is running, unprotected/);
    const before = passed;
    await until(async () => {
      await announce();
      return passed > before;
    }, "frames of the NIC to pass");
    assert.equal(processesOf(pair.link).length, 1, "the process that QEMU waits for has ended");
    await qmp.execute("quit").catch(() => {});
    await until(() => processesOf(pair.link).length === 0, "kemari send to end after QEMU");
  };
  return { pair, recv, qmp, announce, delay, assertServedOn };
}

/** The processes of `kemari send` to this address. */
function processesOf(link: string): number[] {
  return [...Deno.readDirSync("/proc")].map(({ name }) => Number(name)).filter((pid) => {
    try {
      const words = Deno.readTextFileSync(`/proc/${pid}/cmdline`).split("\0");
      return words.includes("send") && words.includes(link);
    } catch {
      return false;
    }
  });
}

/** The one of them that QEMU knows. */
function frontOf(link: string): number {
  const all = processesOf(link);
  return all.find((pid) => {
    const parent = /^PPid:\s*(\d+)$/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`));
    return !all.includes(Number(parent![1]));
  })!;
}

sideBySide("e2e: what kemari send changes in a QEMU", (scene) => {
  scene("kemari send puts the operator's time between checkpoints back", async () => {
    const { pair, recv, announce, delay, assertServedOn } = await sending(true);
    await using _ = pair;
    await until(async () => {
      await announce();
      return await delay() === 100;
    }, "held output to ask for a checkpoint");
    recv.signal("SIGKILL");
    await until(async () => await delay() === 1234, "the delay to be put back");
    await assertServedOn();
  });

  scene(
    "kemari send puts it back where QEMU has ended the migration, and the VM is here",
    async () => {
      const { pair, recv, qmp, announce, delay } = await sending(true);
      await using _ = pair;
      await until(async () => {
        await announce();
        return await delay() === 100;
      }, "held output to ask for a checkpoint");
      await qmp.execute("x-colo-lost-heartbeat");
      await recv.waitFor(/the sender has ended the protection/);
      await until(async () => await delay() === 1234, "the delay to be put back");
      await pair.assertRunning(pair.primary);
    },
  );

  scene(
    "kemari send lets a VM go whose checkpoint the secondary refuses in the middle",
    async () => {
      const { pair, recv, announce, assertServedOn } = await sending(false);
      await using _ = pair;
      await announce();
      await recv.waitFor(/a packet of net tap net0/);
      await assertServedOn();
    },
  );

  scene("whoever kills the kemari send that QEMU knows has killed all of it", async () => {
    const { pair, recv } = await sending(true);
    await using _ = pair;
    assert.equal(processesOf(pair.link).length, 2);
    Deno.kill(frontOf(pair.link), "SIGKILL");
    await until(() => processesOf(pair.link).length === 0, "the other one to end");
    await pair.receiverStatus(({ state }) => state === "waiting");
    assert.match(recv.stderr, /lost/);
  });

  scene("a kemari send that is asked to end sets the VM free, and all of it ends", async () => {
    const { pair } = await sending(true);
    await using _ = pair;
    Deno.kill(frontOf(pair.link), "SIGTERM");
    await until(() => processesOf(pair.link).length === 0, "both processes to end");
    await pair.assertRunning(pair.primary);
    assert.match(await Deno.readTextFile(`${pair.folder}/log`), /the VM is running, unprotected/);
  });
});
