/** What the world sends to a protected guest reaches it, at any number of checkpoints, in order. */
import assert from "node:assert/strict";
import { CountedClient, type SegmentCounters } from "../../fixtures/counted_client.ts";
import { ensureGuest } from "../../fixtures/guest/guest.ts";
import { guestPrograms } from "../../fixtures/guest/guest_programs.ts";
import { NetLab, netLabMissing } from "../../fixtures/net_lab.ts";
import { until } from "../../fixtures/protected_pair.ts";
import { ensureQemu } from "../../fixtures/provision/qemu.ts";
import { startVm, type Vm } from "../../fixtures/vm.ts";
import { FROM_SOURCE, KemariProcess } from "../../fixtures/watched_kemari.ts";
import { askControl } from "./control.ts";
import type { SenderStatus } from "./end_status.ts";

const missing = await netLabMissing();
if (missing) console.error(`SKIP network tests: ${missing}`);

const never = new AbortController().signal;
const DATAGRAMS = 4000;
/** Fewer than any queue on the way has room for, on however slow a machine. */
const DATAGRAMS_UNDER_WAY = 100;
/** The last datagram of all may have been lost. */
const SILENCE_MS = 5000;
const SEGMENTS = 3000;
const SEGMENT = new Uint8Array(64);
const PORT = 7000;
/** Sixty checkpoints a second, and those that the guest's answers ask for. */
const INTERVAL_MS = 16;

/** The guest echoes what comes by TCP, and by UDP. */
const SERVE = `ip addr add 10.77.0.2/24 dev eth0 && ip link set eth0 up
nc -ll -p ${PORT} -e cat > /dev/null 2>&1 &
/opt/socat UDP-LISTEN:${PORT} PIPE > /dev/null 2>&1 &
while ! grep -q :1B58 /proc/net/udp; do sleep 0.1; done`;

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
    this.vm = this.#stack.use(
      await startVm({
        qemu: (await ensureQemu("11.1")).program,
        guest: await ensureGuest({
          kernel: device === "virtio-net-pci" ? "cloud" : "full",
          extras: await guestPrograms(["socat"]),
        }),
        name: `inputs-${device}`,
        args: [
          ...["-netdev", `stream,id=n0,server=off,addr.type=unix,addr.path=${folder}/net`],
          ...["-device", `${device},netdev=n0,mac=52:54:00:12:34:56,romfile=`],
          ...["-qmp", `unix:${folder}/qmp,server=on,wait=off`],
        ],
      }),
    );
    await this.vm.ready();
    await this.guest(SERVE);
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
      return (await askControl(control, "status", never) as unknown as SenderStatus).syncs ?? 0;
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

  /** Sends numbered datagrams, some at a time. @returns The numbers that come back, in order. */
  async sendDatagrams(): Promise<number[]> {
    // The guest's echo knows one client for ever.
    const client = this.#datagrams ??= this.#stack.use(
      CountedClient.connect("udp", this.lab.client, this.lab.guestIp, PORT),
    );
    const encoder = new TextEncoder();
    const decoder = new TextDecoder();
    let text = "";
    const numbers: number[] = [];
    let heardAt = performance.now();
    for (let next = 0, known = 0; known < DATAGRAMS;) {
      for (let i = 0; i < 3 && next < DATAGRAMS && next - known < DATAGRAMS_UNDER_WAY; i++) {
        client.send(encoder.encode(`${next++}\n`));
      }
      const heard = client.receive();
      if (heard.length > 0) {
        heardAt = performance.now();
        const lines = (text + decoder.decode(heard)).split("\n");
        text = lines.pop()!;
        numbers.push(...lines.map(Number));
        known = numbers.at(-1)! + 1;
      } else if (performance.now() - heardAt > SILENCE_MS) {
        if (next === DATAGRAMS) break;
        heardAt = performance.now();
        known = next;
      }
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    return numbers;
  }

  /** Sends a segment every millisecond, and hears them come back. */
  async converse(): Promise<SegmentCounters> {
    using client = CountedClient.connect("tcp", this.lab.client, this.lab.guestIp, PORT);
    let heard = 0;
    for (let i = 0; i < SEGMENTS; i++) {
      client.send(SEGMENT);
      heard += client.receive().length;
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    client.receiveAll(SEGMENTS * SEGMENT.length - heard);
    return client.segments;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
    await Deno.remove(this.folder, { recursive: true });
  }
}

for (const device of ["virtio-net-pci", "e1000"]) {
  Deno.test({
    name: `e2e: nothing that is sent to a protected guest is lost, nor overtaken, ${device}`,
    ignore: missing !== undefined,
    fn: async () => {
      await using scene = await Scene.open(device);
      const all = Array.from({ length: DATAGRAMS }, (_, i) => i);
      const measure = async () => {
        const begun = await scene.syncs();
        const segments = await scene.converse();
        const numbers = await scene.sendDatagrams();
        const syncs = await scene.syncs() - begun;
        const lost = segments.sentAgain - segments.hadAlready;
        console.log(
          `${device}: ${DATAGRAMS - numbers.length} of ${DATAGRAMS} datagrams missing, ` +
            `${lost} of ${segments.sent} segments lost (${segments.sentAgain} sent again), ` +
            `${syncs} checkpoints`,
        );
        assert.deepEqual(numbers, all);
        assert.equal(lost, 0);
        return syncs;
      };
      await measure();
      await scene.protectNow();
      const syncs = await measure();
      assert.ok(syncs > 100, `${syncs} checkpoints`);
    },
  });
}
