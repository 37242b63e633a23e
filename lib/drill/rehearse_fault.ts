/** One run of the drill with a client outside of the guest, from two empty hosts to the verdict. */
import { KemariError } from "../errors.ts";
import type { RunningVm } from "../lab/vms/standby_guest.ts";
import { connectClient, PERFORM } from "./faults.ts";
import { pingPong } from "./ping_pong.ts";
import { keepEvidence } from "./evidence.ts";
import { DrillHosts, LATE_MS, type Role } from "./hosts.ts";
import { say, senderFigures } from "../lab/program/lab_process.ts";
import { READY_LINE } from "../lab/guest/init_script.ts";
import type { DrillCase, DrillCheck, DrillRun, RunContext } from "./report.ts";
import { DrillWire } from "./wire.ts";

const LOG_LINES = 12;

/**
 * Rehearses a fault, or takeovers back and forth.
 *
 * A run that gets stuck counts as failed: its folder is kept, and the last lines of both kemaris'
 * logs are shown.
 *
 * @throws {KemariError} if the hosts could not be made.
 */
export async function rehearseFault(
  run: number,
  plan: DrillCase,
  context: RunContext,
): Promise<DrillRun[]> {
  const { settings, narrate, signal } = context;
  const folder = await Deno.makeTempDir({ prefix: "kemari-drill-" });
  let isGood = false;
  let hosts: DrillHosts | undefined;
  try {
    await using stack = new AsyncDisposableStack();
    // Either side may be the first to notice that the other is silent.
    const isLate = plan.fault === "link" && context.random.below(2) < 1;
    const graceMs = settings.graceMs + (isLate ? LATE_MS : 0);
    hosts = stack.use(await DrillHosts.start(folder, plan, context, graceMs));
    const bootId = await say(hosts.primary, "cat /proc/sys/kernel/random/boot_id");
    const wire = stack.use(DrillWire.watch(hosts.lab));
    const client = stack.use(await connectClient(hosts, context));
    const rehearsal = { hosts, client, wire, bootId, context };
    const outcomes = await orEvidence(
      hosts,
      settings.memoryMiB,
      settings.pingPong === undefined
        ? PERFORM[plan.fault](rehearsal).then((outcome) => [outcome])
        : pingPong(rehearsal, settings.pingPong),
      signal,
    );
    isGood = outcomes.every(({ checks }) => checks.every((check) => check.held));
    return outcomes.map(({ sender, ...rest }, i) => {
      const { p50, p99 } = sender.taps.nets.net0.hold;
      const figures = { ...senderFigures(sender), heldP50Ms: p50, heldP99Ms: p99 };
      return { run: run + i, case: plan, ...figures, ...rest };
    });
  } catch (error) {
    signal.throwIfAborted();
    if (hosts === undefined || !(error instanceof KemariError)) throw error;
    return [stuck(run, plan, error, crashOf(hosts))];
  } finally {
    if (!isGood && hosts !== undefined && !signal.aborted) await tellLogs(hosts, narrate);
    const isKept = settings.keep || !isGood && !signal.aborted;
    if (isKept) narrate(`everything of this run is kept in ${folder}`);
    else await Deno.remove(folder, { recursive: true });
  }
}

/** Keeps evidence from the VMs of a run that got stuck. */
async function orEvidence<Outcome>(
  hosts: DrillHosts,
  memoryMiB: number,
  run: Promise<Outcome>,
  signal: AbortSignal,
): Promise<Outcome> {
  try {
    return await run;
  } catch (error) {
    for (const role of ["primary", "secondary"] as const) {
      // A host may not have been started yet.
      const vm = hosts[role] as RunningVm | undefined;
      if (vm === undefined || signal.aborted) continue;
      await keepEvidence(vm, hosts.hostOf(role), hosts.folder, memoryMiB);
    }
    throw error;
  }
}

/** Console output of a guest whose kernel crashes. */
const CRASH = /Kernel panic|BUG: |Oops: |general protection fault/;

/**
 * Console output that appears only in a crash. The secondary goes on from the primary's state and
 * does not boot: there, a boot counts as a crash too.
 *
 * @param hosts Either may not have been started yet.
 */
export function crashOf(
  { primary, secondary }: Partial<Record<Role, Pick<RunningVm, "console">>>,
): string | undefined {
  const said = (vm: Pick<RunningVm, "console"> | undefined, isCrash: (text: string) => boolean) =>
    vm?.console.lines.find(({ text }) => isCrash(text))?.text;
  return said(primary, (text) => CRASH.test(text)) ??
    said(secondary, (text) => CRASH.test(text) || text.includes(READY_LINE));
}

/**
 * The report of a run that did not come to its end.
 *
 * @param crash What the guest said, if it crashed.
 */
export function stuck(
  run: number,
  plan: DrillCase,
  error: KemariError,
  crash?: string,
): DrillRun {
  const checks: DrillCheck[] = [
    { name: "the run came to its end", held: false, detail: error.message },
  ];
  if (crash !== undefined) {
    checks.push({ name: "the guest did not crash", held: false, detail: `it said: ${crash}` });
  }
  return {
    run,
    case: plan,
    checks,
    transaction: 0,
    syncs: 0,
    syncsPerSecond: 0,
    pages: 0,
    zeroPages: 0,
    wireBytes: 0,
    pauseP50Ms: 0,
    pauseP99Ms: 0,
    commitAgeMs: 0,
    lastCount: 0,
    firstCount: 0,
  };
}

async function tellLogs(hosts: DrillHosts, narrate: (line: string) => void): Promise<void> {
  for (const side of ["primary", "secondary"] as const) {
    const lines = (await hosts.log(side)).trimEnd().split("\n").slice(-LOG_LINES);
    for (const line of lines) narrate(`${side}'s log: ${line}`);
  }
}
