/**
 * The drill's full form: a client in a network namespace of its own keeps one TCP connection to a
 * service in the guest, which writes every numbered message to a file on the protected disk with
 * fsync, keeps it in memory, and answers. The primary is killed at a random moment.
 */
import { TransportError } from "../lib/errors.ts";
import type { ReceiverStatus, SenderStatus } from "../lib/host/end_status.ts";
import type { TapStatus } from "../lib/host/tap_set.ts";
import { selfCommand } from "../lib/host/self_command.ts";
import { NetLab } from "../fixtures/net_lab.ts";
import { ensureTool } from "../fixtures/provision/tools.ts";
import { startVm, type Vm } from "../fixtures/vm.ts";
import {
  answers,
  ask,
  delay,
  end,
  kill,
  output,
  say,
  senderFigures,
  shell,
  TIMEOUT_MS,
  until,
} from "./drill_process.ts";
import type { DrillCheck, DrillRun, RunContext } from "./drill_report.ts";

const DISK_BYTES = 64 * 2 ** 20;
const PORT = 7000;
/** Answers after the takeover that make it believed. */
const ANSWERS_AFTER = 30;
/** The kill comes up to this much later than asked: at no particular moment of anything. */
const RANDOM_MS = 1000;

const SERVICE = `#!/bin/sh
while read n; do
  echo "$n" >> /mnt/log && sync
  echo "$n" >> /mem/log
  echo "ack $n"
done
`;

type TappedStatus = SenderStatus & { readonly taps: TapStatus };

/** One run. @throws {KemariError} if it could not be carried out. */
export async function drillClientOnce(run: number, context: RunContext): Promise<DrillRun> {
  const { settings, narrate, signal } = context;
  await using stack = new AsyncDisposableStack();
  const folder = await Deno.makeTempDir({ prefix: "kemari-drill-" });
  if (!settings.keep) stack.defer(() => Deno.remove(folder, { recursive: true }));
  const lab = stack.use(await NetLab.make());
  const pair = await startPair(folder, lab, context, stack);
  const { primary, secondary } = pair;
  const bootId = await say(primary, "cat /proc/sys/kernel/random/boot_id");

  narrate("a client connects over TCP, from a network namespace of its own");
  const client = stack.use(new Client(lab));
  await until(() => client.acked.length >= 5 || client.error !== undefined, signal);
  const killAfterMs = settings.seconds * 1000 + Math.random() * RANDOM_MS;
  await delay(killAfterMs, signal);
  const sender = await ask<TappedStatus>(pair.protectControl, signal);
  const receiver = await ask<ReceiverStatus>(pair.recvControl, signal);

  narrate("kill -9: the primary's QEMU and its kemari");
  const killedAt = Date.now();
  kill(pair.protect.pid);
  await primary.powerCut();
  const lastCount = client.acked.at(-1)?.n ?? 0;
  const wanted = client.acked.length + ANSWERS_AFTER;
  await until(() => client.acked.length >= wanted || client.error !== undefined, signal);
  await client.stop();
  const firstCount = client.acked.find(({ atMs }) => atMs > killedAt)?.n ?? 0;
  const outageMs = client.longestGapMs(killedAt - 1000);
  narrate(`the client goes on: answer ${firstCount}, after a gap of ${outageMs.toFixed(0)} ms`);
  const checks = await check(client, secondary, bootId, `${folder}/secondary.img`);
  for (const { name, held, detail } of checks) {
    narrate(`${held ? "held" : "FAILED"}: ${name} (${detail})`);
  }
  const held = sender.taps.nets.net0.hold;
  return {
    run,
    checks,
    transaction: receiver.lastCommitted,
    ...senderFigures(sender),
    commitAgeMs: receiver.lastCommittedAgeMs ?? 0,
    lastCount,
    firstCount,
    outageMs,
    heldP50Ms: held.p50,
    heldP99Ms: held.p99,
  };
}

interface Pair {
  readonly primary: Vm;
  readonly secondary: Vm;
  readonly protect: Deno.ChildProcess;
  readonly protectControl: string;
  readonly recvControl: string;
}

/** Starts both kemaris and both QEMUs, and waits until the VM and its disk are protected. */
async function startPair(
  folder: string,
  lab: NetLab,
  context: RunContext,
  stack: AsyncDisposableStack,
): Promise<Pair> {
  const { qemu, guest, settings, narrate, signal } = context;
  const tools = { onProgress: narrate, signal };
  const mke2fs = await ensureTool("mke2fs", tools);
  for (const side of ["primary", "secondary"]) {
    await Deno.writeFile(`${folder}/${side}.img`, new Uint8Array(0));
    await Deno.truncate(`${folder}/${side}.img`, DISK_BYTES);
  }
  await output(mke2fs, ["-q", "-F", "-t", "ext4", `${folder}/primary.img`], signal);
  const fifoPath = `${folder}/takeover`;
  await output("mkfifo", [fifoPath], signal);
  // Held open both ways, so that recv can serve the disk before QEMU reads the fifo.
  const fifo = await Deno.open(fifoPath, { read: true, write: true });
  stack.defer(() => fifo.close());

  const link = `unix:${folder}/link`;
  const taps = (side: string, device: string) => [
    ...["--net", `net0=unix:${folder}/${side}.net,tap:${device}`],
    ...["--disk", `disk0=${folder}/${side}.img,unix:${folder}/${side}.nbd`],
  ];
  const inWire = (
    ...args: string[]
  ) => [...lab.prefix("wire"), ...selfCommand([...args, "--quiet"])];
  const owned = (child: Deno.ChildProcess) => {
    stack.defer(() => end(child));
    return child;
  };
  narrate("two hosts on one network: each with a kemari that serves the VM's disk and NIC");
  const protectControl = `${folder}/protect`;
  const recvControl = `${folder}/recv`;
  const protect = owned(shell(inWire(
    ...["protect", "--qmp", `${folder}/primary.qmp`, link, "--control", protectControl],
    ...["--sync-interval", `${settings.syncIntervalMs}`, ...taps("primary", "kemA")],
  )));
  await until(() => exists(`${folder}/primary.nbd`) && exists(`${folder}/primary.net`), signal);
  // The fence: what was killed is dead; here the drill itself has seen to it.
  const recv = owned(shell(
    inWire(
      ...["recv", link, "--on-loss", "activate", "--fence", "true", "--control", recvControl],
      ...taps("secondary", "kemB"),
    ),
    `> ${fifoPath}`,
  ));
  await answers(recvControl, recv, signal);
  const machine = (side: string) => ({
    qemu: qemu.program,
    guest,
    name: side,
    memoryMiB: settings.memoryMiB,
    signal,
    args: [
      ...["-netdev", `stream,id=n0,server=off,addr.type=unix,addr.path=${folder}/${side}.net`],
      ...["-device", "virtio-net-pci,netdev=n0,mac=52:54:00:6b:65:6d,romfile="],
      ...["-drive", `file=nbd:unix:${folder}/${side}.nbd,format=raw,if=virtio`],
      ...["-qmp", `unix:${folder}/${side}.qmp,server=on,wait=off`],
    ],
  });
  const secondary = stack.use(
    await startVm({ ...machine("secondary"), incoming: "fd:0", stdin: { path: fifoPath } }),
  );
  narrate(
    `booting the primary (${settings.memoryMiB} MiB), with a service that writes to its disk`,
  );
  const primary = stack.use(await startVm(machine("primary")));
  await primary.ready();
  await say(primary, "mount -t ext4 /dev/vda /mnt");
  await say(primary, `ip link set eth0 up && ip addr add ${lab.guestIp}/24 dev eth0`);
  await say(primary, `printf '%s' '${SERVICE}' > /mem/serve; chmod +x /mem/serve`);
  await say(primary, `nc -ll -p ${PORT} -e /mem/serve > /dev/null 2>&1 &`);
  await until(async () => {
    const status = await ask<TappedStatus>(protectControl, signal).catch(() => undefined);
    return status?.taps !== undefined && status.syncs >= 3 &&
      status.taps.disks.every(({ copied }) => copied === 1);
  }, signal);
  narrate("protected, and the disk has been copied while the VM ran");
  return { primary, secondary, protect, protectControl, recvControl };
}

/** The client's process, and what it was answered. */
class Client implements AsyncDisposable {
  readonly acked: { readonly n: number; readonly atMs: number }[] = [];
  error: string | undefined;
  readonly #process: Deno.ChildProcess;
  readonly #reading: Promise<void>;
  #stopped = false;

  constructor(lab: NetLab) {
    const [program, ...args] = [
      ...lab.prefix("client"),
      ...selfCommand(["drill-client", lab.guestIp, `${PORT}`]),
    ];
    this.#process = new Deno.Command(program, {
      args,
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#reading = this.#read();
  }

  /** Lets it end with the answer that it waits for. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#process.stdin.close().catch(() => {});
    await this.#process.status;
    await this.#reading;
  }

  /** Longest time between two answers, of which the second came after `sinceMs`. */
  longestGapMs(sinceMs: number): number {
    let longest = 0;
    for (let i = 1; i < this.acked.length; i++) {
      if (this.acked[i].atMs < sinceMs) continue;
      longest = Math.max(longest, this.acked[i].atMs - this.acked[i - 1].atMs);
    }
    return longest;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#stopped) kill(this.#process.pid);
    await this.#process.status;
    await this.#reading;
  }

  async #read(): Promise<void> {
    let text = "";
    for await (const part of this.#process.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (text + part).split("\n");
      text = lines.pop()!;
      for (const line of lines) {
        const { acked, atMs, error } = JSON.parse(line);
        if (acked !== undefined) this.acked.push({ n: acked, atMs });
        else if (error !== undefined) this.error = error;
      }
    }
  }
}

async function check(
  client: Client,
  secondary: Vm,
  bootId: string,
  image: string,
): Promise<DrillCheck[]> {
  const last = client.acked.at(-1)?.n ?? 0;
  const logs = await Promise.all(["/mnt/log", "/mem/log"].map(async (path) => {
    const { output } = await secondary.run(`cat ${path}`, { timeoutMs: TIMEOUT_MS });
    return { path, numbers: output.trim().split("\n").map(Number) };
  }));
  const boot = await say(secondary, "cat /proc/sys/kernel/random/boot_id");
  await say(secondary, "umount /mnt");
  const e2fsck = await ensureTool("e2fsck");
  const fsck = await new Deno.Command(e2fsck, { args: ["-fn", image] }).output();
  return [
    {
      name: "the client kept its connection",
      held: client.error === undefined && last > 0,
      detail: client.error ?? `${last} answers`,
    },
    ...logs.map(({ path, numbers }) => ({
      name: `${path === "/mnt/log" ? "the disk" : "the memory"} has every acknowledged number once`,
      held: numbers.length === last && numbers.every((n, i) => n === i + 1),
      detail: `${numbers.length} lines, the last ${numbers.at(-1)}`,
    })),
    {
      name: "the file system is clean",
      held: fsck.code === 0,
      detail: `e2fsck ended with ${fsck.code}`,
    },
    { name: "it is the same boot of the guest", held: boot === bootId, detail: boot },
  ];
}

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}

/** The client itself: `kemari drill-client HOST PORT`, inside its namespace. */
export async function runClient(
  hostname: string,
  port: number,
  say: (line: string) => void,
): Promise<void> {
  const encoder = new TextEncoder();
  let stopping = false;
  void (async () => {
    for await (const _ of Deno.stdin.readable);
    stopping = true;
  })();
  try {
    using connection = await Deno.connect({ hostname, port });
    connection.setNoDelay(true);
    const reader = connection.readable.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (let n = 1; !stopping; n++) {
      await connection.write(encoder.encode(`${n}\n`));
      while (!text.includes("\n")) {
        const { value, done } = await reader.read();
        if (done) throw new TransportError(hostname, "read", "the guest closed the connection");
        text += value;
      }
      const end = text.indexOf("\n");
      const answer = text.slice(0, end);
      text = text.slice(end + 1);
      if (answer !== `ack ${n}`) {
        throw new TransportError(hostname, "read", `"${answer}" in answer to ${n}`);
      }
      say(JSON.stringify({ acked: n, atMs: Date.now() }) + "\n");
    }
  } catch (error) {
    say(JSON.stringify({ error: (error as Error).message }) + "\n");
  }
}
