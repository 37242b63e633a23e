import assert from "node:assert/strict";
import { askControl } from "./control.ts";
import type { SenderStatus } from "./end_status.ts";
import type { TapStatus } from "./tap_set.ts";
import { ensureGuest } from "../../fixtures/guest/guest.ts";
import { FROM_SOURCE, KemariProcess } from "../../fixtures/watched_kemari.ts";
import { NetLab } from "../../fixtures/net_lab.ts";
import { until } from "../../fixtures/protected_pair.ts";
import { ensureQemu } from "../../fixtures/provision/qemu.ts";
import { startVm, type Vm } from "../../fixtures/vm.ts";
import { QmpClient } from "./qmp_client.ts";

type TappedStatus = SenderStatus & { readonly taps: TapStatus };

const never = new AbortController().signal;

const SERVE =
  `mount -t ext4 /dev/vda /mnt && ip link set eth0 up && ip addr add 10.77.0.2/24 dev eth0
cat > /mem/serve <<'END'
#!/bin/sh
while read n; do
  echo "$n" >> /mnt/log && sync
  echo "$n" >> /mem/log
  echo "ack $n"
done
END
chmod +x /mem/serve
nc -ll -p 7000 -e /mem/serve > /dev/null 2>&1 &`;

/** Two hosts on one network, a VM with a disk and a NIC that go through kemari, and a client. */
class TappedPair implements AsyncDisposable {
  readonly acked: { acked: number; atMs: number }[] = [];
  error: string | undefined;
  #stack = new AsyncDisposableStack();
  primary!: Vm;
  secondary!: Vm;
  protect!: KemariProcess;
  recv!: KemariProcess;
  #client: Deno.ChildProcess | undefined;

  constructor(
    readonly folder: string,
    readonly lab: NetLab,
    readonly mode: "replicated" | "shared",
  ) {
    this.#stack.use(lab);
  }

  static async make(mode: "replicated" | "shared", ...options: string[]): Promise<TappedPair> {
    const folder = await Deno.makeTempDir({ prefix: "kemari-tapped-" });
    const pair = new TappedPair(folder, await NetLab.make(), mode);
    try {
      await pair.#start(options);
      return pair;
    } catch (error) {
      await pair[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** The image that a side opens. */
  image(side: "primary" | "secondary"): string {
    return `${this.folder}/${this.mode === "shared" ? "shared" : side}.img`;
  }

  async #start(options: string[]): Promise<void> {
    const { folder, lab } = this;
    for (const side of ["primary", "secondary"] as const) {
      const image = this.image(side);
      await Deno.writeFile(image, new Uint8Array(0));
      await Deno.truncate(image, 32 * 2 ** 20);
    }
    const made = await new Deno.Command("mkfs.ext4", {
      args: ["-q", "-F", "-O", "^metadata_csum", this.image("primary")],
      stderr: "piped",
    }).output();
    assert.ok(made.success, new TextDecoder().decode(made.stderr));
    await new Deno.Command("mkfifo", { args: [`${folder}/takeover`] }).output();
    // Held open both ways, so that recv can serve the disk before QEMU reads the fifo.
    const fifo = await Deno.open(`${folder}/takeover`, { read: true, write: true });
    this.#stack.defer(() => fifo.close());
    const program = [...lab.prefix("wire"), ...FROM_SOURCE];
    const taps = (side: "primary" | "secondary", device: string) => [
      ...["--net", `net0=unix:${folder}/${side}.net,tap:${device}`],
      ...["--disk", `disk0=${this.image(side)},unix:${folder}/${side}.nbd,mode=${this.mode}`],
    ];
    const link = `unix:${folder}/link`;
    const primaryQmp = `${folder}/primary.qmp`;
    this.protect = this.#stack.use(
      new KemariProcess([
        ...["protect", "--qmp", primaryQmp, link, "--control", `${folder}/protect`],
        ...["--sync-interval", "100", ...taps("primary", "kemA"), ...options],
      ], { program }),
    );
    this.recv = this.#stack.use(
      new KemariProcess([
        ...["recv", link, "--control", `${folder}/recv`, "--on-loss", "activate"],
        ...["--fence", "true", ...taps("secondary", "kemB")],
      ], { program, stdout: { path: `${folder}/takeover` } }),
    );
    await this.protect.waitFor(/waiting for QEMU/);
    await this.recv.waitFor(/listening/);
    const qemu = await ensureQemu("11.1");
    const guest = await ensureGuest();
    const machine = (side: string) => ({
      qemu: qemu.program,
      guest,
      memoryMiB: 192,
      args: [
        ...["-netdev", `stream,id=n0,server=off,addr.type=unix,addr.path=${folder}/${side}.net`],
        ...["-device", "virtio-net-pci,netdev=n0,mac=52:54:00:12:34:56,romfile="],
        ...["-drive", `file=nbd:unix:${folder}/${side}.nbd,format=raw,if=virtio`],
        ...["-qmp", `unix:${folder}/${side}.qmp,server=on,wait=off`],
      ],
    });
    this.secondary = this.#stack.use(
      await startVm({
        ...machine("secondary"),
        name: "secondary",
        incoming: "fd:0",
        stdin: { path: `${folder}/takeover` },
      }),
    );
    this.primary = this.#stack.use(await startVm({ ...machine("primary"), name: "primary" }));
    await this.primary.ready();
    const { code, output } = await this.primary.run(SERVE, { timeoutMs: 30_000 });
    assert.equal(code, 0, output);
  }

  /** Connects the client, and follows what it is answered. */
  async connect(): Promise<void> {
    const process = this.#client = this.lab.command(
      "client",
      [...FROM_SOURCE, "drill-client", this.lab.guestIp, "7000"],
      { stdin: "piped", stdout: "piped", stderr: "inherit" },
    ).spawn();
    void (async () => {
      let text = "";
      for await (const part of process.stdout.pipeThrough(new TextDecoderStream())) {
        const lines = (text + part).split("\n");
        text = lines.pop()!;
        for (const line of lines.map((each) => JSON.parse(each))) {
          if (line.acked !== undefined) this.acked.push(line);
          else if (line.error !== undefined) this.error = line.error;
        }
      }
    })();
    await this.moreAnswers(5);
  }

  /** Waits for so many more answers on the same connection. */
  async moreAnswers(count: number): Promise<void> {
    const wanted = this.acked.length + count;
    try {
      await until(
        () => this.error !== undefined || this.acked.length >= wanted,
        `${count} answers`,
      );
    } catch (error) {
      throw new Error(this.#logs(), { cause: error });
    }
    assert.equal(this.error, undefined, this.#logs());
  }

  async syncs(count: number): Promise<TappedStatus> {
    let status: TappedStatus | undefined;
    await until(async () => {
      const socket = `${this.folder}/protect`;
      try {
        status = await askControl(socket, "status", never) as unknown as TappedStatus;
      } catch {
        return false;
      }
      return status.syncs >= count;
    }, `${count} syncs; ${this.#logs()}`);
    return status!;
  }

  /** kill -9 of the primary's QEMU and its kemari, at one blow. */
  async killPrimary(): Promise<void> {
    this.protect.signal("SIGKILL");
    await this.primary.powerCut();
  }

  /** Lets the client end in order, with the answer that it waits for. */
  async disconnect(): Promise<void> {
    await this.#client!.stdin.close();
    assert.equal((await this.#client!.status).code, 0, this.error);
    this.#client = undefined;
  }

  /** Longest time between two answers, ms. */
  get longestGapMs(): number {
    return this.acked.reduce(
      (most, { atMs }, i) => Math.max(most, i === 0 ? 0 : atMs - this.acked[i - 1].atMs),
      0,
    );
  }

  /** Checks that every acknowledged number is in both logs of the VM, once, without a gap. */
  async assertNothingLost(vm: Vm): Promise<void> {
    const last = this.acked.at(-1)!.acked;
    for (const log of ["/mnt/log", "/mem/log"]) {
      const { output } = await vm.run(`cat ${log}`, { timeoutMs: 30_000 });
      const numbers = output.trim().split("\n").map(Number);
      assert.deepEqual(numbers, Array.from({ length: last }, (_, i) => i + 1), log);
    }
  }

  #logs(): string {
    return `protect:\n${this.protect.stderr}\nrecv:\n${this.recv.stderr}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client?.kill("SIGKILL");
    await this.#client?.status;
    await this.#stack.disposeAsync();
    await Deno.remove(this.folder, { recursive: true });
  }
}

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
  await new Promise((resolve) => setTimeout(resolve, 3000));
  await using qmp = await QmpClient.connect(pair.primary.spareQmpPath);
  await qmp.execute("cont");
  await pair.moreAnswers(20);
  await pair.disconnect();
  await pair.assertNothingLost(pair.primary);
  await pair.primary.powerCut();
  assert.equal((await pair.protect.ended(20_000)).code, 4);
});
