/** For tests: traffic into a protected guest, which must arrive completely. */
import assert from "node:assert/strict";
import { CountedClient, type SegmentCounters } from "../../../lab/network/counted_client.ts";
import {
  echoDatagrams,
  exchangeDatagrams,
  exchangeSegments,
} from "../../../lab/network/counted_traffic.ts";
import { ensureGuest } from "../../../lab/guest/guest.ts";
import { guestPrograms } from "../../../lab/guest/guest_programs.ts";
import { NetLab, netLabMissing } from "../../../lab/network/net_lab.ts";
import { until } from "../../../lab/program/until.ts";
import { ensureQemu } from "../../../lab/provision/qemu.ts";
import { startBooted } from "../../../lab/vms/start_booted.ts";
import type { Vm } from "../../../lab/vms/vm.ts";
import { FROM_SOURCE, KemariProcess } from "../../../lab/program/kemari_process.ts";
import { askStatus } from "../../system/ask_control.ts";
import { never } from "../../system/never.ts";

const missing = await netLabMissing();
if (missing) console.error(`SKIP network tests: ${missing}`);

const PORT = 7000;
/** Sixty checkpoints a second, beside those that the guest's answers cause. */
const INTERVAL_MS = 16;

/** The guest echoes what comes by TCP and by UDP. */
const SERVE = `ip addr add 10.77.0.2/24 dev eth0 && ip link set eth0 up
nc -ll -p ${PORT} -e cat > /dev/null 2>&1 &
${echoDatagrams(PORT)}`;

class Scene implements AsyncDisposable {
  readonly #stack = new AsyncDisposableStack();
  #datagrams: CountedClient | undefined;
  vm!: Vm;
  protect!: KemariProcess;

  private constructor(readonly folder: string, readonly lab: NetLab) {
    this.#stack.use(lab);
  }

  static async open(device: string, ...options: string[]): Promise<Scene> {
    const scene = new Scene(await Deno.makeTempDir({ prefix: "kemari-in-" }), await NetLab.make());
    try {
      await scene.#start(device, options);
      return scene;
    } catch (error) {
      await scene[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #start(device: string, options: readonly string[]): Promise<void> {
    const { folder } = this;
    this.protect = this.#kemari([
      ...["protect", "--qmp", `${folder}/qmp`, `unix:${folder}/link`],
      ...["--control", `${folder}/protect`, "--net", `net0=unix:${folder}/net,tap:kemA`],
      ...["--sync-interval", `${INTERVAL_MS}`, ...options],
    ]);
    await this.protect.waitFor(/waiting for QEMU/);
    this.vm = this.#stack.use(await this.#boot(device));
    // Not before the VM runs: a VM that is still being migrated here cannot be protected.
    await Deno.symlink(`${folder}/vm.qmp`, `${folder}/qmp`);
    await this.guest(SERVE);
  }

  async #boot(device: string): Promise<Vm> {
    const { folder } = this;
    const machine = {
      qemu: (await ensureQemu("11.1")).program,
      guest: await ensureGuest({
        kernel: device === "virtio-net-pci" ? "cloud" : "full",
        extras: await guestPrograms(["socat"]),
      }),
      name: `inputs-${device}`,
    };
    const nic = ["-device", `${device},netdev=n0,mac=52:54:00:12:34:56,romfile=`];
    const net = `stream,id=n0,server=off,addr.type=unix,addr.path=${folder}/net`;
    const qmp = `unix:${folder}/vm.qmp,server=on,wait=off`;
    return await startBooted(
      { ...machine, args: ["-netdev", net, ...nic, "-qmp", qmp] },
      { ...machine, args: ["-netdev", "hubport,id=n0,hubid=0", ...nic] },
    );
  }

  /** Starts the secondary, and waits until the VM is protected. */
  async protectNow(): Promise<void> {
    const { folder } = this;
    const recv = this.#kemari([
      ...["recv", `unix:${folder}/link`, "--net", `net0=unix:${folder}/b.net,tap:kemB`],
    ]);
    await recv.waitFor(/listening/);
    await until(async () => (await this.syncs()) >= 5, `protection; ${this.protect.stderr}`);
  }

  async syncs(): Promise<number> {
    try {
      const control = `${this.folder}/protect`;
      return (await askStatus(control, never)).syncs;
    } catch {
      return 0;
    }
  }

  #kemari(words: readonly string[]): KemariProcess {
    const program = [...this.lab.prefix("wire"), ...FROM_SOURCE];
    return this.#stack.use(new KemariProcess(words, { program }));
  }

  /** Runs a command in the guest that must succeed. */
  async guest(command: string): Promise<string> {
    const { code, output } = await this.vm.run(command, { timeoutMs: 60_000 });
    assert.equal(code, 0, `${command}: ${output}`);
    return output;
  }

  /** Sends numbered datagrams. @returns The numbers that come back, in order. */
  sendDatagrams(count: number): Promise<number[]> {
    // The guest's echo answers its first client only.
    this.#datagrams ??= this.#stack.use(
      CountedClient.connect("udp", this.lab.client, this.lab.guestIp, PORT),
    );
    return exchangeDatagrams(this.#datagrams, count);
  }

  async converse(segments: number): Promise<SegmentCounters> {
    using client = CountedClient.connect("tcp", this.lab.client, this.lab.guestIp, PORT);
    return await exchangeSegments(client, segments);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
    await Deno.remove(this.folder, { recursive: true });
  }
}

/** How much is sent, unprotected and protected each. */
interface Amounts {
  readonly datagrams: number;
  readonly segments: number;
}

/** A guest gets everything that is sent to it, in order, by UDP and by TCP. */
export function testGuestInputs(
  device: string,
  mode: "colo" | "snapshot",
  { datagrams, segments }: Amounts,
): void {
  Deno.test({
    name:
      `e2e: nothing that is sent to a protected guest is lost, nor overtaken, ${device}, ${mode}`,
    ignore: missing !== undefined,
    fn: async () => {
      await using scene = await Scene.open(device, "--mode", mode);
      const all = Array.from({ length: datagrams }, (_, i) => i);
      const measure = async () => {
        const begun = await scene.syncs();
        const counted = await scene.converse(segments);
        const numbers = await scene.sendDatagrams(datagrams);
        const syncs = await scene.syncs() - begun;
        const lost = counted.sentAgain - counted.hadAlready;
        console.log(
          `${device}, ${mode}: ${datagrams - numbers.length} of ${datagrams} datagrams missing, ` +
            `${lost} of ${counted.sent} segments lost (${counted.sentAgain} sent again), ` +
            `${syncs} checkpoints`,
        );
        assert.deepEqual(numbers, all);
        assert.equal(lost, 0);
        return syncs;
      };
      assert.equal(await measure(), 0);
      await scene.protectNow();
      assert.ok(await measure() > 20, "a guest that is not stopped shows nothing");
    },
  });
}
