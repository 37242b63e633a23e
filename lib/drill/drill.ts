/**
 * The failover drill: real QEMU, real kemari processes, a real `kill -9`, and checks of the guest
 * afterwards.
 */
import { KemariError, QemuError, UsageError } from "../errors.ts";
import { ensureGuest, type GuestImages, type GuestKernel } from "../lab/guest/guest.ts";
import { netLabMissing } from "../lab/network/net_lab.ts";
import { ensureQemu } from "../lab/provision/qemu.ts";
import { leaveSignalsToCaller } from "../lab/vms/vm_cleanup.ts";
import { BootedVms } from "./booted_vms.ts";
import { inParallel } from "../lab/program/in_parallel.ts";
import { drillMemory } from "./drill_memory.ts";
import { DEVICE_MODELS, FAULT_TEXT } from "./plan.ts";
import { SeededRandom } from "./seeded_random.ts";
import { rehearseFault, stuck } from "./rehearse_fault.ts";
import { ProgressClock } from "../lab/program/progress_clock.ts";
import type {
  DrillCase,
  DrillForm,
  DrillReport,
  DrillRun,
  DrillSettings,
  Narrate,
  RunContext,
} from "./report.ts";

export type { DrillReport, DrillRun };

/**
 * Runs the drill: every fault with every device model, as often as asked.
 *
 * @param cutShort Gets the report of the runs so far, if any, when the drill fails or is
 *   interrupted.
 * @throws {KemariError} if the drill could not be carried out; checks that fail are in the report.
 */
export async function drill(
  settings: DrillSettings,
  narrate: Narrate,
  signal: AbortSignal,
  cutShort: (report: DrillReport) => void = () => {},
): Promise<DrillReport> {
  leaveSignalsToCaller();
  const form = await formOf(settings, narrate);
  const { qemu, guests } = await parts(settings, form, narrate, signal);
  const plans = form === "memory" ? [undefined] : casesOf(settings);
  const rounds = settings.pingPong ?? 1;
  const total = settings.runs * plans.length * rounds;
  const isOnce = form === "client" && sharesBoots(settings);
  const runs: DrillRun[] = [];
  const report = (): DrillReport => ({
    qemu: qemu.fullVersion,
    guestKernels: Object.values(guests).map(({ kernelVersion }) => kernelVersion),
    memoryMiB: settings.memoryMiB,
    form,
    boot: isOnce ? "once" : "each",
    jobs: settings.jobs,
    seed: settings.seed,
    held: runs.every(({ checks }) => checks.every(({ held }) => held)),
    runs: runs.toSorted((a, b) => a.run - b.run),
  });
  await using booted = isOnce ? new BootedVms(signal) : undefined;
  const clock = new ProgressClock();
  let finished = 0;
  const perform = async (run: number): Promise<void> => {
    signal.throwIfAborted();
    const plan = plans[(run - 1) / rounds % plans.length];
    const own = settings.jobs === 1 ? narrate : (line: string) => narrate(`run ${run}: ${line}`);
    if (total > 1) {
      const which = rounds === 1 ? `run ${run}` : `runs ${run} to ${run + rounds - 1}`;
      const what = plan === undefined ? "" : `: ${about(plan)}`;
      // Before the first runs end there is nothing to estimate by, although most are nearly done.
      const left = clock.left(finished < settings.jobs ? 0 : finished * rounds, total);
      narrate(`${which} of ${total}${what}${left}`);
    }
    // Each run has its own random moments, which do not depend on its place in the drill.
    const random = new SeededRandom(settings.seed + run - 1);
    const context: RunContext = { qemu, guests, settings, booted, random, narrate: own, signal };
    const done = plan === undefined
      ? [await drillMemory(run, context)]
      : await rehearseFault(run, plan, context).catch((error) => {
        // Hosts could be made before: worth a line in the report, and not the end of a long drill.
        if (runs.length === 0 || signal.aborted || !(error instanceof KemariError)) throw error;
        return [stuck(run, plan, error)];
      });
    for (const { name, held, detail } of done.flatMap(({ checks }) => checks)) {
      own(`${held ? "held" : "FAILED"}: ${name} (${detail})`);
    }
    runs.push(...done);
    finished++;
  };
  const first = Array.from({ length: total / rounds }, (_, i) => 1 + i * rounds);
  let isCut = false;
  const cut = () => {
    if (runs.length > 0 && !isCut) cutShort(report());
    isCut = true;
  };
  // Reported at once: ending the other runs may take longer than there is time for.
  signal.addEventListener("abort", cut);
  try {
    await inParallel(settings.jobs, first, perform, (error, run) => {
      if (signal.aborted || settings.jobs === 1) return;
      narrate(`run ${run}: not carried out: ${(error as Error).message}; no other is begun`);
    });
    return report();
  } catch (error) {
    cut();
    // Failures that come from the interruption are not worth reporting.
    signal.throwIfAborted();
    throw error;
  } finally {
    signal.removeEventListener("abort", cut);
  }
}

/** Whether a device model has several runs that can start from one boot. */
function sharesBoots({ boot, faults, runs }: DrillSettings): boolean {
  const fit = faults.filter((fault) => fault !== "copy").length;
  return boot === "once" && runs * fit > 1;
}

function casesOf({ faults, devices, diskMode, commit }: DrillSettings): DrillCase[] {
  return devices.flatMap((each) =>
    faults.map((fault) => ({ fault, devices: each, diskMode, commit }))
  );
}

function about({ fault, devices, diskMode, commit }: DrillCase): string {
  return `${fault} (${FAULT_TEXT[fault]}), ${devices}, ${diskMode} disk, ${commit} commit`;
}

/** Which form this host allows; for the smaller form, reports why. */
async function formOf(settings: DrillSettings, narrate: Narrate): Promise<DrillForm> {
  const { form } = settings;
  if (form === "memory") {
    if (!needsClient(settings)) return form;
    throw new UsageError(
      "--form memory has no disk and no NIC, and knows only the primary's death",
      { hint: "leave --fault, --ping-pong, --devices, --disk-mode and --commit away, or --form" },
    );
  }
  const missing = await netLabMissing();
  if (missing === undefined) return "client";
  if (form === "client" || needsClient(settings)) {
    throw new QemuError("drill", "Unavailable", `no client outside of the guest: ${missing}`, {
      hint: "run as root, or kemari drill --form memory",
    });
  }
  narrate(`without a client outside of the guest: ${missing}`);
  return "memory";
}

/** Whether an option was given that the form without a client does not have. */
function needsClient(settings: DrillSettings): boolean {
  const { faults, devices, diskMode, commit } = settings;
  return settings.pingPong !== undefined || faults.join() !== "primary" ||
    devices.join() !== "virtio" || diskMode !== "replicated" ||
    commit !== "async";
}

/** QEMU and the guests; without them, runs the recorded demonstration and reports the reason. */
async function parts(
  settings: DrillSettings,
  form: DrillForm,
  narrate: Narrate,
  signal: AbortSignal,
) {
  const options = { onProgress: narrate, signal };
  const kernels = form === "memory"
    ? new Set<GuestKernel>(["cloud"])
    : new Set(settings.devices.map((name) => DEVICE_MODELS[name].kernel));
  try {
    const qemu = await ensureQemu("11.1", options);
    const guests: Partial<Record<GuestKernel, GuestImages>> = {};
    for (const kernel of kernels) guests[kernel] = await ensureGuest({ ...options, kernel });
    return { qemu, guests };
  } catch (error) {
    if (!(error instanceof KemariError) || signal.aborted) throw error;
    narrate(`no drill on this host: ${error.message}`);
    // The recordings are no part of the packed executable.
    if (Deno.mainModule.endsWith("/main.ts")) {
      narrate("showing the recorded-stream demonstration instead");
      const { demonstrate } = await import(
        new URL("lib/drill/demonstration.ts", Deno.mainModule).href
      );
      await demonstrate(narrate);
    } else narrate("the recorded-stream demonstration needs kemari's source");
    throw new QemuError("drill", "Unavailable", `not carried out: ${error.message}`, {
      hint: error.hint,
      cause: error,
    });
  }
}
