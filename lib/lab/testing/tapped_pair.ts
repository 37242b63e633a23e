/** For tests on real QEMU: a VM whose disk and NIC go through kemari, and a client outside. */
import assert from "node:assert/strict";
import { askReceiver, askTappedSender, type TappedStatus } from "../program/ask_end.ts";
import type { ReceiverStatus } from "../../control/receiver_status.ts";
import { ensureGuest } from "../guest/guest.ts";
import { NetLab } from "../network/net_lab.ts";
import { PATIENCE } from "./kemari_pair.ts";
import { until } from "../program/until.ts";
import type { Guest } from "./protected_pair.ts";
import { cacheDir, exists, withLock } from "../provision/cache_dir.ts";
import { ensureQemu } from "../provision/qemu.ts";
import { startBooted } from "../vms/start_booted.ts";
import { StandbyGuest } from "../vms/standby_guest.ts";
import { startVm, type Vm } from "../vms/vm.ts";
import { FROM_SOURCE, KemariProcess, type StartOptions } from "../program/kemari_process.ts";
import { never } from "../../host/system/never.ts";

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

const FILE_SYSTEM_BYTES = 32 * 2 ** 20;

/** Puts bytes that are no two alike behind an image's file system. */
async function writeNoise(path: string, lengthBytes: number): Promise<void> {
  using file = await Deno.open(path, { write: true });
  await file.seek(FILE_SYSTEM_BYTES, Deno.SeekMode.Start);
  for (let left = lengthBytes; left > 0;) {
    const piece = crypto.getRandomValues(new Uint8Array(Math.min(left, 65536)));
    left -= await file.write(piece);
  }
}

/** A disk with an empty file system, as the VM's guest has booted with it. The cache's own. */
async function bootedDisk(lengthBytes: number): Promise<string> {
  const path = `${cacheDir()}/booted-disk-${lengthBytes}.img`;
  await withLock(`${path}.lock`, {}, async () => {
    if (await exists(path)) return;
    const part = `${path}.part`;
    await Deno.writeFile(part, new Uint8Array(0));
    await Deno.truncate(part, lengthBytes);
    const made = await new Deno.Command("mkfs.ext4", {
      args: ["-q", "-F", "-O", "^metadata_csum", part, `${FILE_SYSTEM_BYTES / 1024}k`],
      stderr: "piped",
    }).output();
    assert.ok(made.success, new TextDecoder().decode(made.stderr));
    await Deno.rename(part, path);
  });
  return path;
}

/** The same devices, whatever is behind them. */
function devices(netdev: string, drive: string): string[] {
  return [
    ...["-netdev", netdev],
    ...["-device", "virtio-net-pci,netdev=n0,mac=52:54:00:12:34:56,romfile="],
    ...["-drive", `file=${drive},format=raw,if=virtio`],
  ];
}

type Role = "primary" | "secondary";
/** A host keeps its name when roles change. */
type Host = "a" | "b";

/** Two hosts on one network, a VM with a disk and a NIC that go through kemari, and a client. */
export class TappedPair implements AsyncDisposable {
  readonly acked: { acked: number; atMs: number }[] = [];
  error: string | undefined;
  #stack = new AsyncDisposableStack();
  primary!: Vm;
  secondary!: Vm;
  /** The guest of a standby that `kemari recv` starts, instead of {@link secondary}. */
  standby!: StandbyGuest;
  /** Who protects the VM, or asked for it. */
  protect!: KemariProcess;
  /** The secondary's kemari. */
  recv!: KemariProcess;
  /** The kemari that serves the primary's taps. */
  tapper!: KemariProcess;
  #client: Deno.ChildProcess | undefined;
  #hosts: Readonly<Record<Role, Host>> = { primary: "a", secondary: "b" };
  /** Where the sender tells its status. */
  #control = "";
  #takeovers = 0;

  constructor(
    readonly folder: string,
    readonly lab: NetLab,
    readonly mode: "replicated" | "shared",
    /** Bytes of noise on the primary's disk, behind its file system. */
    readonly noiseBytes = 0,
    /** Whether `kemari recv` has a warm standby. */
    readonly isWarm = false,
  ) {
    this.#stack.use(lab);
  }

  static make(mode: "replicated" | "shared", ...options: string[]): Promise<TappedPair> {
    return TappedPair.makeWith(mode, 0, ...options);
  }

  /** With a warm standby at the secondary. */
  static async makeWarm(mode: "replicated" | "shared"): Promise<TappedPair> {
    const folder = await Deno.makeTempDir({ prefix: "kemari-tapped-" });
    const pair = new TappedPair(folder, await NetLab.make(), mode, 0, true);
    try {
      await pair.#start([]);
      return pair;
    } catch (error) {
      await pair[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** With so much on the disk that copying it takes a while. */
  static async makeWith(
    mode: "replicated" | "shared",
    noiseBytes: number,
    ...options: string[]
  ): Promise<TappedPair> {
    const folder = await Deno.makeTempDir({ prefix: "kemari-tapped-" });
    const pair = new TappedPair(folder, await NetLab.make(), mode, noiseBytes);
    try {
      await pair.#start(options);
      return pair;
    } catch (error) {
      await pair[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** The image that a role's host opens. */
  image(role: Role): string {
    return this.#image(this.#hosts[role]);
  }

  #image(host: Host): string {
    return `${this.folder}/${this.mode === "shared" ? "shared" : host}.img`;
  }

  async #start(options: string[]): Promise<void> {
    const { folder } = this;
    for (const role of ["primary", "secondary"] as const) {
      const image = this.image(role);
      await Deno.writeFile(image, new Uint8Array(0));
      await Deno.truncate(image, FILE_SYSTEM_BYTES + this.noiseBytes);
    }
    const disk = await bootedDisk(FILE_SYSTEM_BYTES + this.noiseBytes);
    await Deno.copyFile(disk, this.image("primary"));
    await writeNoise(this.image("primary"), this.noiseBytes);
    const host = this.#hosts.primary;
    this.protect = this.#kemari([
      ...["protect", "--qmp", `${folder}/${host}.qmp`, this.#link("secondary")],
      ...["--control", `${folder}/protect`, "--sync-interval", "100", ...this.#taps(host)],
      ...PATIENCE,
      ...options,
    ]);
    await this.protect.waitFor(/waiting for QEMU/);
    this.tapper = this.protect;
    this.#control = `${folder}/protect`;
    await this.#standBy();
    // kemari would refuse a QEMU that is still being restored: it finds its monitor afterwards.
    const early = `${folder}/early.qmp`;
    const machine = await this.#machine(host, early);
    const booted = { ...machine, args: devices("hubport,id=n0,hubid=0", `${disk},snapshot=on`) };
    this.primary = this.#stack.use(await startBooted(machine, booted));
    await Deno.rename(early, `${folder}/${host}.qmp`);
    const { code, output } = await this.primary.run(SERVE, { timeoutMs: 30_000 });
    assert.equal(code, 0, output);
  }

  /**
   * After a takeover: the survivor is the primary from here on, and the host that died gets a new
   * kemari and a new QEMU. Who was asked to protect again is {@link protect}.
   */
  async repair(...options: string[]): Promise<void> {
    const { primary, secondary } = this.#hosts;
    this.#hosts = { primary: secondary, secondary: primary };
    this.primary = this.secondary;
    this.tapper = this.recv;
    await this.#standBy();
    this.#control = `${this.folder}/${secondary}.recv`;
    this.protect = this.#kemari(this.viaWords(...options));
  }

  /**
   * kill -9 of the secondary's kemari, and another one in its place.
   *
   * @param isEmptied Whether it finds an empty image, rather than the one that was left.
   */
  async restartRecv(isEmptied = false): Promise<void> {
    this.recv.signal("SIGKILL");
    await this.secondary.powerCut();
    if (isEmptied) {
      const { size } = await Deno.stat(this.image("secondary"));
      await Deno.truncate(this.image("secondary"), 0);
      await Deno.truncate(this.image("secondary"), size);
    }
    await this.#standBy();
  }

  /** The secondary's status, once it is as wanted. */
  async receiverStatus(accept: (status: ReceiverStatus) => boolean): Promise<ReceiverStatus> {
    const control = `${this.folder}/${this.#hosts.secondary}.recv`;
    let status: ReceiverStatus | undefined;
    await until(async () => {
      try {
        status = await askReceiver(control, never);
      } catch {
        return false;
      }
      return accept(status);
    }, `the secondary's status; ${this.#logs()}`);
    return status!;
  }

  /** The command that asks the survivor to protect. */
  viaWords(...options: string[]): string[] {
    const qmp = `${this.folder}/${this.#hosts.primary}.qmp`;
    return [
      ...["protect", "--qmp", qmp, "--via", this.#control, this.#link("secondary")],
      ...["--sync-interval", "100", ...PATIENCE, ...options],
    ];
  }

  /** Waits until the secondary's disk is whole. */
  async copied(): Promise<void> {
    await until(async () => {
      const { taps } = await this.syncs(1);
      return taps.disks.every(({ copied }) => copied === 1);
    }, "the disk's copy");
    // The transaction that says so must be there.
    await this.syncs((await this.syncs(1)).syncs + 2);
  }

  /** Starts the secondary's kemari, and a QEMU that waits for its stream. */
  async #standBy(): Promise<void> {
    const { folder } = this;
    const host = this.#hosts.secondary;
    const words = [
      ...["recv", this.#link("secondary"), "--control", `${folder}/${host}.recv`],
      ...["--on-loss", "activate", "--fence", "true", ...this.#taps(host), ...PATIENCE],
    ];
    if (this.isWarm) {
      this.standby = this.#stack.use(await StandbyGuest.prepare(await this.#machine(host)));
      this.recv = this.#kemari([...words, "--standby", this.standby.command]);
      await this.recv.waitFor(/listening/);
      return;
    }
    const path = `${folder}/takeover-${++this.#takeovers}`;
    await new Deno.Command("mkfifo", { args: [path] }).output();
    // Held open both ways, so that recv can serve the disk before QEMU reads the fifo.
    const fifo = await Deno.open(path, { read: true, write: true });
    this.#stack.defer(() => fifo.close());
    this.recv = this.#kemari(words, { stdout: { path } });
    await this.recv.waitFor(/listening/);
    const machine = await this.#machine(host);
    this.secondary = this.#stack.use(
      await startVm({ ...machine, incoming: "fd:0", stdin: { path } }),
    );
  }

  #kemari(words: readonly string[], options: StartOptions = {}): KemariProcess {
    const program = [...this.lab.prefix("wire"), ...FROM_SOURCE];
    return this.#stack.use(new KemariProcess(words, { ...options, program }));
  }

  #link(role: Role): string {
    return `unix:${this.folder}/${this.#hosts[role]}.link`;
  }

  #taps(host: Host): string[] {
    const { folder } = this;
    const device = { a: "kemA", b: "kemB" }[host];
    return [
      ...["--net", `net0=unix:${folder}/${host}.net,tap:${device}`],
      ...["--disk", `disk0=${this.#image(host)},unix:${folder}/${host}.nbd,mode=${this.mode}`],
    ];
  }

  async #machine(host: Host, qmp = `${this.folder}/${host}.qmp`) {
    const { folder } = this;
    return {
      qemu: (await ensureQemu("11.1")).program,
      guest: await ensureGuest(),
      name: `host-${host}`,
      memoryMiB: 192,
      args: [
        ...devices(
          `stream,id=n0,server=off,addr.type=unix,addr.path=${folder}/${host}.net`,
          `nbd:unix:${folder}/${host}.nbd`,
        ),
        ...["-qmp", `unix:${qmp},server=on,wait=off`],
      ],
    };
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
      try {
        status = await askTappedSender(this.#control, never);
      } catch {
        return false;
      }
      return status.syncs >= count;
    }, `${count} syncs; ${this.#logs()}`);
    return status!;
  }

  /** kill -9 of the primary's QEMU and its kemari, at one blow. */
  async killPrimary(): Promise<void> {
    this.tapper.signal("SIGKILL");
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
  async assertNothingLost(vm: Guest): Promise<void> {
    const last = this.acked.at(-1)!.acked;
    for (const log of ["/mnt/log", "/mem/log"]) {
      const { output } = await vm.run(`cat ${log}`, { timeoutMs: 30_000 });
      const numbers = output.trim().split("\n").map(Number);
      assert.deepEqual(numbers, Array.from({ length: last }, (_, i) => i + 1), log);
    }
  }

  #logs(): string {
    return `protect:\n${this.protect.stderr}\ntapper:\n${this.tapper.stderr}\nrecv:\n${this.recv.stderr}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client?.kill("SIGKILL");
    await this.#client?.status;
    await this.#stack.disposeAsync();
    await Deno.remove(this.folder, { recursive: true });
  }
}
