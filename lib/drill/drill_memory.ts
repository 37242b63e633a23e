/**
 * The drill's small form, for a host that allows no networks: the guest counts on its console and
 * in memory, and goes on in a second QEMU.
 */
import { formatWholeMs } from "../units.ts";
import { askReceiver, askSender } from "../lab/program/ask_end.ts";
import type { TakeoverStatus } from "../control/receiver_status.ts";
import { makeKeyFile } from "../host/keygen.ts";
import { selfCommand } from "../host/system/self_command.ts";
import { type RunningVm, StandbyGuest } from "../lab/vms/standby_guest.ts";
import { startVm } from "../lab/vms/vm.ts";
import {
  answers,
  end,
  kill,
  output,
  protectedBy,
  say,
  senderFigures,
  shell,
  TIMEOUT_MS,
} from "../lab/program/lab_process.ts";
import type { DrillCheck, DrillRun, RunContext } from "./report.ts";
import { until } from "../lab/program/until.ts";
import { delay } from "../host/system/delay.ts";

/** How many numbers the guest must print after the takeover. */
const COUNTS_AFTER = 10;

/** One run. @throws {KemariError} if the run could not be carried out. */
export async function drillMemory(
  run: number,
  context: RunContext,
): Promise<DrillRun> {
  const { qemu, guests, settings, narrate, signal } = context;
  const folder = await Deno.makeTempDir({ prefix: "kemari-drill-" });
  const children: Deno.ChildProcess[] = [];
  const machine = {
    qemu: qemu.program,
    guest: guests.cloud!,
    memoryMiB: settings.memoryMiB,
    append: `kemari.count=1 kemari.fill=${settings.fillMiB}`,
    signal,
  };
  try {
    narrate(
      `booting the primary (${settings.memoryMiB} MiB, ${settings.fillMiB} MiB of it filled)`,
    );
    await using primary = await startVm({ ...machine, name: "primary" });
    await primary.ready();
    const bootId = await say(primary, "cat /proc/sys/kernel/random/boot_id");

    const fifo = `${folder}/takeover`;
    await output("mkfifo", [fifo], signal);
    const link = `unix:${folder}/link`;
    const fence = `kill -9 ${primary.pid} 2>/dev/null; ` +
      `while kill -0 ${primary.pid} 2>/dev/null; do sleep 0.01; done`;
    const isWarm = settings.standby === "warm";
    const security = settings.key ? ["--key", `${folder}/key`] : [];
    if (settings.key) makeKeyFile(`${folder}/key`, "drill");
    const recvWords = [
      ...selfCommand(["recv", link, "--on-loss", "activate", "--fence", fence]),
      ...["--control", `${folder}/recv`, "--quiet"],
      ...security,
    ];
    await using standby = isWarm
      ? await StandbyGuest.prepare({ ...machine, name: "secondary" })
      : undefined;
    const recv = standby === undefined
      ? shell(recvWords, `> ${fifo}`)
      : shell([...recvWords, "--standby", standby.command]);
    children.push(recv);
    await using cold = isWarm ? undefined : await startVm({
      ...machine,
      name: "secondary",
      incoming: "fd:0",
      stdin: { path: fifo },
    });
    const secondary: RunningVm = standby ?? cold!;
    await answers(`${folder}/recv`, recv, signal);
    narrate("a standby QEMU waits behind `kemari recv`; `kemari protect` attaches to the primary");
    const protect = shell([
      ...selfCommand(["protect", "--qmp", primary.qmpPath, link]),
      ...["--sync-interval", `${settings.syncIntervalMs}`],
      ...["--control", `${folder}/protect`, "--quiet"],
      ...security,
    ]);
    children.push(protect);
    await protectedBy(`${folder}/protect`, protect, signal);
    const receiverStatus = () => askReceiver(`${folder}/recv`, signal);
    if (isWarm) {
      await until(async () => (await receiverStatus()).standby?.state === "ready", "the standby", {
        signal,
      });
    }
    narrate(`protected; synchronizing for ${settings.seconds} s`);
    await delay(settings.seconds * 1000, signal);

    const sender = await askSender(`${folder}/protect`, signal);
    narrate("kill -9: the primary's QEMU and its kemari");
    const killedAt = Date.now();
    kill(protect.pid);
    const askedAt = Date.now();
    const receiver = await askReceiver(`${folder}/recv`, signal).catch(() => undefined);
    // The time before the call: the answer may have taken a while, and the value must not be too
    // late.
    const committedAt = askedAt - (receiver?.lastCommittedAgeMs ?? 0);
    await primary.powerCut();
    const said = counts(primary).filter(({ atMs }) => atMs <= killedAt + 1000);
    const lastCount = said.at(-1)?.count ?? 0;

    let ended = false;
    recv.status.then(() => ended = true);
    let takeover: TakeoverStatus | undefined;
    await until(
      async () => {
        if (!isWarm) return ended;
        takeover = (await receiverStatus()).takeover ?? undefined;
        return takeover?.runningMs != null;
      },
      "the takeover",
      { signal },
    );
    const first = await secondary.console.waitFor(/count (\d+)/, { timeoutMs: TIMEOUT_MS });
    const outageMs = first.atMs - killedAt;
    narrate(`the secondary runs: "${first.text}" ${formatWholeMs(outageMs)} after the kill`);
    await until(() => counts(secondary).length >= COUNTS_AFTER, "the secondary's count", {
      signal,
    });
    const after = counts(secondary).map(({ count }) => count);
    const checks = await check({ primary, secondary, bootId, said, after, committedAt });
    return {
      run,
      checks,
      transaction: receiver?.lastCommitted ?? 0,
      ...senderFigures(sender),
      commitAgeMs: killedAt - committedAt,
      lastCount,
      firstCount: after[0],
      outageMs,
      takeover,
    };
  } finally {
    for (const child of children) await end(child);
    if (!settings.keep) await Deno.remove(folder, { recursive: true }).catch(() => {});
  }
}

interface Count {
  readonly count: number;
  readonly atMs: number;
}

/** The numbers that a guest has printed on its console. */
function counts(vm: RunningVm): Count[] {
  return vm.console.lines.flatMap(({ text, atMs }) => {
    const found = /^count (\d+)$/.exec(text.trim());
    return found === null ? [] : [{ count: Number(found[1]), atMs }];
  });
}

interface Evidence {
  readonly primary: RunningVm;
  readonly secondary: RunningVm;
  readonly bootId: string;
  readonly said: readonly Count[];
  readonly after: readonly number[];
  readonly committedAt: number;
}

async function check(evidence: Evidence): Promise<DrillCheck[]> {
  const { secondary, bootId, said, after, committedAt } = evidence;
  const last = said.at(-1)?.count ?? 0;
  // Numbers printed well before the last commit are in it; the console may lag by a moment.
  const committed = said.filter(({ atMs }) => atMs < committedAt - 100).at(-1)?.count ?? 0;
  const contiguous = after.every((count, i) => i === 0 || count === after[i - 1] + 1);
  const inMemory = Number(await say(secondary, "cat /mem/count"));
  const sum = await secondary.run("sha256sum -c /mem/fill.sha256", { timeoutMs: TIMEOUT_MS });
  const boot = await say(secondary, "cat /proc/sys/kernel/random/boot_id");
  return [
    {
      name: "the count goes on from the last committed one",
      held: after[0] > committed && after[0] <= last + 1 && committed > 0,
      detail: `committed at least ${committed}, last heard ${last}, first of the secondary ${
        after[0]
      }`,
    },
    {
      name: "no number is missing or said twice afterwards",
      held: contiguous,
      detail: `${after[0]} to ${after.at(-1)}`,
    },
    {
      name: "the memory-resident counter agrees with the console",
      held: inMemory >= after.at(-1)!,
      detail: `${inMemory} in memory`,
    },
    {
      name: "the large file in memory has its checksum",
      held: sum.code === 0,
      detail: sum.output.trim() || `exit ${sum.code}`,
    },
    { name: "it is the same boot of the guest", held: boot === bootId, detail: boot },
  ];
}
