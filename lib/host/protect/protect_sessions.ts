import { getLogger } from "@logtape/logtape";
import { nextTry } from "../../decisions/primary_end.ts";
import { waitAfterCancel } from "../../decisions/vm_fate.ts";
import { QemuError } from "../../errors.ts";
import { triggerCheckpoint } from "../../qmp/migration.ts";
import { refusalOf } from "../../qmp/migration_support.ts";
import type { Address } from "../system/address.ts";
import { askSecondary } from "./ask_secondary.ts";
import { CheckpointRequests } from "./checkpoint_requests.ts";
import { compressionOf } from "../link/compression.ts";
import { statusLine } from "../status/status_line.ts";
import { senderDurations, senderStatus, vmStatus } from "../status/sender_status.ts";
import type { EarlyStatus, SenderStatus } from "../../control/sender_status.ts";
import { ImageMarks } from "../image/image_marks.ts";
import { DeviceWatch } from "../vm/device_watch.ts";
import { startGuardian } from "./guardian.ts";
import type { SenderLinkOptions } from "../link/link_options.ts";
import { MigrationChannel } from "../vm/migration_channel.ts";
import { OutsideWatch } from "../vm/outside_watch.ts";
import type { ProtectBoard } from "./protect_board.ts";
import { protectByColo } from "./protect_colo.ts";
import type { ProtectSettings } from "./protect_context.ts";
import { letGo, partFromSecondary } from "./protect_loss.ts";
import { protectBySnapshots } from "./protect_snapshots.ts";
import { connectSecondary, untilAwake, untilProtectable } from "./protect_waits.ts";
import { readMigrationSupport } from "../vm/qemu_probe.ts";
import { RateMeter } from "../system/rate_meter.ts";
import type { Reactor } from "../system/reactor.ts";
import { Refusals } from "./refusals.ts";
import type { ProgressLine } from "../system/progress_line.ts";
import { SenderLink } from "../link/sender_link.ts";
import { SOFTWARE } from "../system/software.ts";
import { StillVm } from "../vm/still_vm.ts";
import type { SupervisedLine } from "../vm/supervised_line.ts";
import type { TapSet } from "../taps/tap_set.ts";
import { readVmIdentity } from "../vm/vm_identity.ts";
import { endedBy, fateInWords } from "../vm/vm_end_words.ts";

const log = getLogger(["kemari", "protect"]);

/** QEMU answers nothing while its disks keep its main loop waiting: that is no reason to leave it. */
const PATIENCE_MS = 600_000;

/** Supervises the VM behind a QMP connection, which stays the caller's to close. */
export async function protectVm(
  line: SupervisedLine,
  settings: ProtectSettings,
  target: Address,
  reactor: Reactor,
  taps: TapSet,
  progress: ProgressLine,
  signal: AbortSignal,
  board: ProtectBoard,
): Promise<void> {
  const { qmp, watch } = line;
  let support = await reactor.during(readMigrationSupport(qmp), signal);
  const refusal = refusalOf(support);
  if (refusal !== undefined) throw refusal;
  qmp.patienceMs = PATIENCE_MS;
  if (support.standsStill !== undefined) {
    board.waits(support.runState === "suspended" ? "suspended" : "waiting for the VM to run");
    support = await untilProtectable(line, reactor, signal);
  }
  const vm = await reactor.during(readVmIdentity(qmp, settings.vm), signal);
  board.waits("connecting");
  for (const warning of support.warnings) log.warn("{warning}", { warning });
  const outside = new OutsideWatch(qmp, taps);
  await reactor.during(outside.look(), signal);
  const mode = settings.mode === "auto" ? support.mode : settings.mode;
  if (mode === "colo" && !support.colo) {
    throw new QemuError("x-colo", "GenericError", `no COLO: ${support.coloReason}`, {
      hint: "use --mode snapshot",
    });
  }
  log.info("QEMU {version} ({accelerator}), mode {mode}: {reason}", {
    version: support.version.text,
    accelerator: support.accelerator,
    mode,
    reason: settings.mode === "auto" ? support.reason : "as asked",
  });
  const rate = new RateMeter();
  const folder = await Deno.makeTempDir({ prefix: "kemari-" });
  let link: SenderLink | undefined;
  let last: SenderLink | undefined;
  /** What the VM has to do before it can be protected. */
  let waits: "suspended" | "waiting for the VM to run" | undefined;
  /** How long was waited the last time that somebody had ended QEMU's migration. */
  let cancelWaitMs = 0;
  /** Whether QEMU knows how things stand. */
  let told = true;
  const guardian = startGuardian(settings.qmp, settings.onSecondaryLoss, folder);
  const still = new StillVm(qmp, support, folder);
  const channel = new MigrationChannel(reactor, qmp, folder);
  const interval = { ms: settings.syncIntervalMs };
  const requests = new CheckpointRequests({
    ...{ reactor, watch, taps, settings, peer: target.text },
    // Snapshots look at the trigger themselves; in COLO QEMU is told.
    ask: mode === "colo" ? () => qmp.run(triggerCheckpoint(interval.ms)) : undefined,
  });
  watch.follow({
    resumed: () => {
      still.resumed();
      guardian.decide(settings.onSecondaryLoss);
    },
    stopped: () => {
      // Killed, we must not have it run either.
      if (link?.primary.dialogue.isVmPaused) guardian.decide("stop");
    },
  });
  const devices = new DeviceWatch();
  const status = (): SenderStatus | EarlyStatus =>
    last === undefined ? { role: "sender", state: "connecting", peer: target.text, syncs: 0 } : {
      ...senderStatus(
        last,
        waits ?? (link === undefined ? "unprotected" : undefined),
        mode === "colo" ? "colo" : "snapshots",
        target.text,
        rate,
        settings.compress,
      ),
      vm: vmStatus(vm),
      outside: outside.found,
      deviceChange: devices.change,
      ...(taps.isEmpty ? {} : { taps: taps.status }),
    };
  board.show(status, () => senderDurations(last, taps.recentHolds()));
  outside.begin(reactor);
  const stopMeter = reactor.every(250, () => {
    devices.look(last?.primary.firstPass.sections);
    rate.update(last?.primary.counters.committed ?? 0);
    if (progress.isShown && last !== undefined) progress.set(statusLine(status() as SenderStatus));
  });
  try {
    const refusals = new Refusals(target.text);
    const linkOptions: SenderLinkOptions = {
      ...settings,
      vm,
      compression: compressionOf(settings),
      taps,
      stream: mode === "colo" ? "colo" : "snapshots",
      firstPassEnd: "told",
      software: settings.sessionName ? `${SOFTWARE} (${settings.sessionName})` : SOFTWARE,
    };
    const ask = () => askSecondary(target, linkOptions, reactor);
    for (let first = true;; first = false) {
      let begunAt = performance.now();
      try {
        const peer = await connectSecondary(target, reactor, signal, first || !settings.retry);
        const marks = await reactor.during(ImageMarks.place(taps.images), signal);
        last = link = new SenderLink(reactor, peer, { ...linkOptions, marks });
        requests.begin(link);
        link.onFirstCommit = () => refusals.over();
        await reactor.run(() => last!.ready, signal);
        refusals.connected(link.peerSoftware);
        interval.ms = settings.syncIntervalMs;
        // Somebody may have paused it while it was unprotected.
        if (!first) {
          support = await untilProtectable(line, reactor, signal, (runState) => {
            waits = runState === "suspended" ? "suspended" : "waiting for the VM to run";
          });
          waits = undefined;
        }
        begunAt = performance.now();
        const context = {
          reactor,
          settings,
          support,
          qmp,
          watch,
          link,
          trigger: requests.trigger,
          still,
          channel,
          interval,
          folder,
          signal,
        };
        if (mode === "colo") await protectByColo(context);
        else await protectBySnapshots(context);
        return;
      } catch (error) {
        const lost = link;
        devices.look(lost?.primary.firstPass.sections);
        const wasLinked = lost?.ready === true;
        link = undefined;
        requests.rest();
        const { onSecondaryLoss } = settings;
        const { isFull: isQuiet } = refusals;
        const parts = {
          ...{ qmp, reactor, folder, watch, still, taps, guardian, onSecondaryLoss, ask, isQuiet },
          signal,
        };
        told = false;
        waits = undefined;
        line.ignoreEnd();
        const parted = await partFromSecondary(error, lost, parts);
        told = parted.told === true;
        const { vm } = parted;
        const tries = { retry: settings.retry, wasLinked, isFirst: first, hasTaps: !taps.isEmpty };
        const next = nextTry(parted.known, parted.fate, tries);
        const isHere = parted.heard || onSecondaryLoss === "continue";
        if (next === "never" || vm !== undefined && !isHere) {
          throw vm === undefined || signal.aborted
            ? parted.error
            : endedBy(vm, parted.error, wasLinked ? parted.heard : undefined, target.text);
        }
        line.heedEnd();
        if (parted.told === "later") {
          waits = "suspended";
          await untilAwake(line, reactor, signal);
          line.ignoreEnd();
          told = await letGo("continue", parts) === true;
          line.heedEnd();
        }
        if (vm === undefined) await refusals.wait(next, parted.known.end, error, reactor, signal);
        else if (vm.kind !== "asleep") {
          cancelWaitMs = waitAfterCancel(cancelWaitMs, performance.now() - begunAt);
          log.warn(
            "{what}; the VM is here, unprotected, and is protected again in {seconds} s (to end a " +
              "protection, interrupt kemari protect)",
            { what: fateInWords(vm), seconds: cancelWaitMs / 1000 },
          );
          await reactor.sleep(cancelWaitMs, signal);
        }
      }
    }
  } finally {
    requests.rest();
    stopMeter();
    outside.end();
    link?.close();
    channel.close();
    if (told) {
      // Before that: killed in between, nobody would.
      await Deno.remove(folder, { recursive: true }).catch(() => {});
      await guardian.dismiss();
    } else await guardian.inherit();
  }
}
