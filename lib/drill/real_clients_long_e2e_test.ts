/** Programs that nobody wrote for kemari, in a protected guest and against it, across a failover. */
import assert from "node:assert/strict";
import { ensureGuest } from "../lab/guest/guest.ts";
import { type GuestProgram, guestPrograms } from "../lab/guest/guest_programs.ts";
import { netLabMissing } from "../lab/network/net_lab.ts";
import { ensureQemu } from "../lab/provision/qemu.ts";
import { ensureTool } from "../lab/provision/tools.ts";
import type { RunningVm } from "../lab/vms/standby_guest.ts";
import { FROM_SOURCE } from "../lab/program/kemari_process.ts";
import { checkReplicaDisk } from "./checks.ts";
import { DrillHosts } from "./hosts.ts";
import { never } from "../host/system/never.ts";
import { delay } from "../host/system/delay.ts";
import { until } from "../lab/program/until.ts";

const TIMEOUT_MS = 60_000;
const MIB = 2 ** 20;
/** Each way; the guest's file system has room for one. */
const FILE_MIB = 32;

/** Two hosts and a protected VM with some programs in it. */
class Scene implements AsyncDisposable {
  private constructor(readonly folder: string, readonly hosts: DrillHosts) {}

  static async make(...programs: GuestProgram[]): Promise<Scene> {
    const qemu = await ensureQemu("11.1");
    const extras = programs.length > 0 ? await guestPrograms(programs) : undefined;
    const cloud = await ensureGuest({ extras });
    const folder = await Deno.makeTempDir({ prefix: "kemari-clients-" });
    try {
      const hosts = await DrillHosts.start(folder, {
        fault: "primary",
        devices: "virtio",
        diskMode: "replicated",
        commit: "async",
      }, {
        qemu,
        kemari: FROM_SOURCE,
        guests: { cloud },
        settings: { memoryMiB: 512, syncIntervalMs: 20, standby: "cold", graceMs: 3000 },
        narrate: () => {},
        signal: never,
      });
      return new Scene(folder, hosts);
    } catch (error) {
      await Deno.remove(folder, { recursive: true });
      throw error;
    }
  }

  /** Runs a command in the guest, wherever that is. */
  async guest(vm: RunningVm, command: string): Promise<string> {
    const { code, output } = await vm.run(command, { timeoutMs: TIMEOUT_MS });
    assert.equal(code, 0, `${command}\n${output}\n${await this.#logs()}`);
    return output.trim();
  }

  /** Starts a command in the guest that goes on by itself; see {@link outcome}. */
  async start(name: string, command: string): Promise<void> {
    await this.guest(
      this.hosts.primary,
      `( { ${command}; } > /mem/${name}.out 2>&1; echo $? > /mem/${name}.code ) > /dev/null 2>&1 &`,
    );
  }

  /** Waits until somebody in the guest listens at a TCP port. */
  async listening(vm: RunningVm, port: number): Promise<void> {
    // Local address and port, anybody, LISTEN; over IPv4 or both.
    const line = `:${port.toString(16).toUpperCase().padStart(4, "0")} 0*:0000 0A `;
    await this.guest(
      vm,
      `until cat /proc/net/tcp /proc/net/tcp6 | grep -q '${line}'; do sleep 0.1; done`,
    );
  }

  /** Waits for the end of a command that was started: it must have gone well. */
  async outcome(vm: RunningVm, name: string): Promise<string> {
    const code = `while [ ! -s /mem/${name}.code ]; do sleep 0.1; done; cat /mem/${name}.code`;
    const ended = await this.guest(vm, code);
    const said = await this.guest(vm, `cat /mem/${name}.out`);
    assert.equal(ended, "0", `${name}:\n${said}\n${await this.#logs()}`);
    return said;
  }

  /** kill -9 of the primary's host. */
  async killPrimary(): Promise<void> {
    await this.hosts.killPrimary();
  }

  /** What a command outside of the guest says, which must go well. */
  async client(script: string): Promise<string> {
    const { code, stdout, stderr } = await this.hosts.lab.run("client", "bash", "-c", script);
    assert.equal(code, 0, `${script}\n${stdout}\n${stderr}\n${await this.#logs()}`);
    return stdout.trim();
  }

  async #logs(): Promise<string> {
    return `${await this.hosts.log("primary")}\n${await this.hosts.log("secondary")}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.hosts[Symbol.asyncDispose]();
    await Deno.remove(this.folder, { recursive: true });
  }
}

const missing = await netLabMissing();

function test(name: string, body: () => Promise<void>) {
  Deno.test({
    name: `e2e: ${name}${missing ? ` SKIP: ${missing}` : ""}`,
    ignore: !!missing,
    fn: body,
  });
}

const FIO = "/opt/fio --ioengine=psync --bs=4k --rw=randwrite --verify=crc32c --verify_fatal=1 " +
  "--verify_state_save=0 --direct=1 --output-format=terse --terse-version=3";

test("fio verifies the protected disk before a failover, across it, and what was there before it", async () => {
  await using scene = await Scene.make("fio");
  const { hosts } = scene;
  const old = `${FIO} --name=old --filename=/mnt/old --size=4m`;
  await scene.guest(hosts.primary, old);
  // It writes for some seconds, and reads all of it again at the end: on the other host.
  await scene.start(
    "across",
    `${FIO} --name=across --filename=/mnt/across --size=8m --fsync=32 --rate_iops=400`,
  );
  await scene.guest(hosts.primary, "while [ ! -s /mnt/across ]; do sleep 0.1; done; sleep 2");
  assert.equal(await scene.guest(hosts.primary, "ls /mem | grep -c across.code || true"), "0");
  await scene.killPrimary();
  await scene.outcome(hosts.secondary, "across");
  await scene.guest(hosts.secondary, "echo 3 > /proc/sys/vm/drop_caches");
  await scene.guest(hosts.secondary, `${old} --verify_only`);
  const replica = await checkReplicaDisk(hosts);
  assert.ok(replica.held, replica.detail);
});

test("iperf3 keeps its connections through a failover, into the guest and out of it", async () => {
  await using scene = await Scene.make("iperf3");
  const { hosts } = scene;
  await scene.start("server", "/opt/iperf3 -s -1 -p 5201");
  await scene.start("reverse", "/opt/iperf3 -s -1 -p 5202");
  const iperf3 = await ensureTool("iperf3");
  const run = (port: number, option: string) =>
    scene.client(`'${iperf3}' -c ${hosts.lab.guestIp} -p ${port} ${option} -t 8 -b 8M -J`);
  for (const port of [5201, 5202]) await scene.listening(hosts.primary, port);
  const running = Promise.all([run(5201, ""), run(5202, "-R")]);
  await delay(3000);
  await scene.killPrimary();
  for (const json of await running) {
    // It ends with 0 whatever happens, and says here what did.
    const { intervals, end, error } = JSON.parse(json);
    assert.equal(error, undefined, json);
    const late = intervals.slice(-3).map(({ sum }: { sum: { bytes: number } }) => sum.bytes);
    assert.equal(late.length, 3, json);
    assert.ok(late.every((bytes: number) => bytes > 0), `bytes in the last seconds: ${late}`);
    assert.ok(end.sum_received.bytes > MIB, json);
  }
  await scene.outcome(hosts.secondary, "server");
  await scene.outcome(hosts.secondary, "reverse");
});

test("large files get through a failover whole, into the guest and out of it", async () => {
  await using scene = await Scene.make();
  const { hosts, folder } = scene;
  const { guestIp } = hosts.lab;
  await scene.guest(
    hosts.primary,
    `dd if=/dev/urandom of=/mem/out bs=1M count=${FILE_MIB} 2>/dev/null`,
  );
  const outSum = await scene.guest(hosts.primary, "sha256sum < /mem/out");
  const upload = `${folder}/upload`;
  await new Deno.Command("dd", {
    args: ["if=/dev/urandom", `of=${upload}`, "bs=1M", `count=${FILE_MIB}`],
    stderr: "null",
  }).output();
  const inSum = await scene.client(`sha256sum < ${upload}`);
  await scene.start("send", "nc -l -p 7001 < /mem/out");
  await scene.start("receive", "nc -l -p 7002 > /mnt/in");
  for (const port of [7001, 7002]) await scene.listening(hosts.primary, port);
  const download = `${folder}/download`;
  const fetched = scene.client(
    `head -c ${FILE_MIB * MIB} < /dev/tcp/${guestIp}/7001 > ${download}`,
  );
  // Slow enough to be under way at the kill.
  const sent = scene.client(
    `for i in $(seq ${FILE_MIB}); do dd bs=1M count=1 2>/dev/null; sleep 0.1; done ` +
      `< ${upload} > /dev/tcp/${guestIp}/7002`,
  );
  const size = async () => (await Deno.stat(download).catch(() => ({ size: 0 }))).size;
  await until(async () => await size() > 4 * MIB, "the first megabytes");
  await scene.killPrimary();
  const atKill = await size();
  assert.ok(atKill < (FILE_MIB - 4) * MIB, `${atKill} bytes of the download at the kill`);
  await Promise.all([fetched, sent]);
  assert.equal(await scene.client(`sha256sum < ${download}`), outSum);
  await scene.outcome(hosts.secondary, "receive");
  await scene.guest(hosts.secondary, "sync; echo 3 > /proc/sys/vm/drop_caches");
  assert.equal(await scene.guest(hosts.secondary, "sha256sum < /mnt/in"), inSum);
});
