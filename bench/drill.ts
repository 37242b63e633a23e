/**
 * The failover drill: real QEMU, real kemari processes, a real `kill -9`, and checks of what the
 * guest says afterwards.
 */
import { KemariError, QemuError } from "../lib/errors.ts";
import type { ReceiverStatus, SenderStatus } from "../lib/host/end_status.ts";
import { selfCommand } from "../lib/host/self_command.ts";
import { ensureGuest } from "../fixtures/guest/guest.ts";
import { netLabMissing } from "../fixtures/net_lab.ts";
import { ensureQemu } from "../fixtures/provision/qemu.ts";
import { startVm, type Vm } from "../fixtures/vm.ts";
import { leaveSignalsToCaller } from "../fixtures/vm_cleanup.ts";
import { drillClientOnce } from "./drill_client.ts";
import {
  answers,
  ask,
  delay,
  end,
  kill,
  output,
  protectedBy,
  say,
  senderFigures,
  shell,
  TIMEOUT_MS,
  until,
} from "./drill_process.ts";
import type {
  DrillCheck,
  DrillForm,
  DrillReport,
  DrillRun,
  DrillSettings,
  Narrate,
  RunContext,
} from "./drill_report.ts";

export type { DrillReport, DrillRun };

/** How many numbers the guest says after the takeover before it is believed. */
const COUNTS_AFTER = 10;

/**
 * Runs the drill.
 *
 * @throws {KemariError} if it could not be carried out; checks that fail are in the report.
 */
export async function drill(
  settings: DrillSettings,
  narrate: Narrate,
  signal: AbortSignal,
): Promise<DrillReport> {
  leaveSignalsToCaller();
  const { qemu, guest } = await parts(narrate, signal);
  const form = await formOf(settings, narrate);
  const runs: DrillRun[] = [];
  for (let run = 1; run <= settings.runs; run++) {
    signal.throwIfAborted();
    if (settings.runs > 1) narrate(`run ${run} of ${settings.runs}`);
    try {
      const context = { qemu, guest, settings, narrate, signal };
      runs.push(await (form === "client" ? drillClientOnce : drillOnce)(run, context));
    } catch (error) {
      // What breaks because the drill was interrupted is not worth reporting.
      signal.throwIfAborted();
      throw error;
    }
  }
  return {
    qemu: qemu.fullVersion,
    guestKernel: guest.kernelVersion,
    memoryMiB: settings.memoryMiB,
    form,
    held: runs.every(({ checks }) => checks.every(({ held }) => held)),
    runs,
  };
}

/** Which form this host allows; says why if it is the smaller one. */
async function formOf({ form }: DrillSettings, narrate: Narrate): Promise<DrillForm> {
  if (form === "memory") return form;
  const missing = await netLabMissing();
  if (missing === undefined) return "client";
  if (form === "client") {
    throw new QemuError("drill", "Unavailable", `no client outside of the guest: ${missing}`, {
      hint: "run as root, or kemari drill --form memory",
    });
  }
  narrate(`without a client outside of the guest: ${missing}`);
  return "memory";
}

/** QEMU and the guest; where they cannot be had, the recorded demonstration and the reason. */
async function parts(narrate: Narrate, signal: AbortSignal) {
  const options = { onProgress: narrate, signal };
  try {
    return { qemu: await ensureQemu("11.1", options), guest: await ensureGuest(options) };
  } catch (error) {
    if (!(error instanceof KemariError) || signal.aborted) throw error;
    narrate(`no drill on this host: ${error.message}`);
    // The recordings are no part of the packed executable.
    if (Deno.mainModule.endsWith("/main.ts")) {
      narrate("showing the recorded-stream demonstration instead");
      const { demonstrate } = await import(new URL("bench/demonstration.ts", Deno.mainModule).href);
      await demonstrate(narrate);
    } else narrate("the recorded-stream demonstration needs kemari's source");
    throw new QemuError("drill", "Unavailable", `not carried out: ${error.message}`, {
      hint: error.hint,
      cause: error,
    });
  }
}

async function drillOnce(run: number, context: RunContext): Promise<DrillRun> {
  const { qemu, guest, settings, narrate, signal } = context;
  const folder = await Deno.makeTempDir({ prefix: "kemari-drill-" });
  const children: Deno.ChildProcess[] = [];
  const machine = {
    qemu: qemu.program,
    guest,
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
    const recv = shell(
      [
        ...selfCommand(["recv", link, "--on-loss", "activate", "--fence", fence]),
        ...["--control", `${folder}/recv`, "--quiet"],
      ],
      `> ${fifo}`,
    );
    children.push(recv);
    await using secondary = await startVm({
      ...machine,
      name: "secondary",
      incoming: "fd:0",
      stdin: { path: fifo },
    });
    await answers(`${folder}/recv`, recv, signal);
    narrate("a standby QEMU waits behind `kemari recv`; `kemari protect` attaches to the primary");
    const protect = shell([
      ...selfCommand(["protect", "--qmp", primary.qmpPath, link]),
      ...["--sync-interval", `${settings.syncIntervalMs}`],
      ...["--control", `${folder}/protect`, "--quiet"],
    ]);
    children.push(protect);
    await protectedBy(`${folder}/protect`, protect, signal);
    narrate(`protected; synchronizing for ${settings.seconds} s`);
    await delay(settings.seconds * 1000, signal);

    const sender = await ask<SenderStatus>(`${folder}/protect`, signal);
    narrate("kill -9: the primary's QEMU and its kemari");
    const killedAt = Date.now();
    kill(protect.pid);
    const receiver = await ask<ReceiverStatus>(`${folder}/recv`, signal).catch(() => undefined);
    const committedAt = Date.now() - (receiver?.lastCommittedAgeMs ?? 0);
    await primary.powerCut();
    const said = counts(primary).filter(({ atMs }) => atMs <= killedAt + 1000);
    const lastCount = said.at(-1)?.count ?? 0;

    let ended = false;
    recv.status.then(() => ended = true);
    await until(() => ended, signal);
    const first = await secondary.console.waitFor(/count (\d+)/, { timeoutMs: TIMEOUT_MS });
    const outageMs = first.atMs - killedAt;
    narrate(`the secondary runs: "${first.text}" ${outageMs.toFixed(0)} ms after the kill`);
    await until(() => counts(secondary).length >= COUNTS_AFTER, signal);
    const after = counts(secondary).map(({ count }) => count);
    const checks = await check({ primary, secondary, bootId, said, after, committedAt });
    for (const { name, held, detail } of checks) {
      narrate(`${held ? "held" : "FAILED"}: ${name} (${detail})`);
    }
    return {
      run,
      checks,
      transaction: receiver?.lastCommitted ?? 0,
      ...senderFigures(sender),
      commitAgeMs: killedAt - committedAt,
      lastCount,
      firstCount: after[0],
      outageMs,
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

/** The numbers a guest has said on its console. */
function counts(vm: Vm): Count[] {
  return vm.console.lines.flatMap(({ text, atMs }) => {
    const found = /^count (\d+)$/.exec(text.trim());
    return found === null ? [] : [{ count: Number(found[1]), atMs }];
  });
}

interface Evidence {
  readonly primary: Vm;
  readonly secondary: Vm;
  readonly bootId: string;
  readonly said: readonly Count[];
  readonly after: readonly number[];
  readonly committedAt: number;
}

async function check(evidence: Evidence): Promise<DrillCheck[]> {
  const { secondary, bootId, said, after, committedAt } = evidence;
  const last = said.at(-1)?.count ?? 0;
  // What was said well before the last commit is in it; the console may lag behind by a moment.
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
