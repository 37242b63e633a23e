import { getLogger } from "@logtape/logtape";
import { UsageError } from "../errors.ts";
import { type Address, parseAddress } from "./address.ts";
import { ControlServer } from "./control.ts";
<<<<<<< HEAD
import {
  senderDurations,
  type SenderStatus,
  senderStatus,
  statusLine,
  vmStatus,
} from "./end_status.ts";
import { ImageMarks } from "./image_marks.ts";
import { startGuardian } from "./guardian.ts";
import type { LinkTiming, SenderLinkOptions } from "./link_options.ts";
import { MigrationChannel } from "./migration_channel.ts";
import { OutsideWatch } from "./outside_watch.ts";
import { type EarlyStatus, ProtectBoard } from "./protect_board.ts";
import { protectByColo } from "./protect_colo.ts";
import { partFromSecondary } from "./protect_loss.ts";
import { protectBySnapshots } from "./protect_snapshots.ts";
import { connectQemu, connectSecondary, untilProtectable } from "./protect_waits.ts";
import { readMigrationSupport } from "./qemu_probe.ts";
import { readVmIdentity } from "./vm_identity.ts";
=======
import { ProtectBoard } from "./protect_board.ts";
import type { ProtectSettings } from "./protect_context.ts";
import { protectVm } from "./protect_sessions.ts";
import { connectQemu } from "./protect_waits.ts";
>>>>>>> 3d14d3d4cdb91f16fdc1a465494a79c4bbbc3355
import type { QmpClient } from "./qmp_client.ts";
import { parseQmpAddress } from "./qmp_address.ts";
import { Reactor } from "./reactor.ts";
import { followVm } from "./release_vm.ts";
import type { ProgressLine } from "./send.ts";
import { serveUntilUnused } from "./serve_taps.ts";
import { SupervisedLine } from "./supervised_line.ts";
import { TapSet } from "./tap_set.ts";
import { VmEnded } from "./vm_watch.ts";

export type { ProtectSettings } from "./protect_context.ts";

const log = getLogger(["kemari", "protect"]);

<<<<<<< HEAD
export interface ProtectSettings extends LinkTiming, CompressSettings {
  readonly target: string;
  readonly qmp: string;
  readonly mode: "auto" | "colo" | "snapshot";
  readonly commit: "sync" | "async";
  readonly maxInFlightBytes: number;
  readonly syncIntervalMs: number;
  readonly onSecondaryLoss: OnSecondaryLoss;
  readonly retry: boolean;
  readonly control?: string;
  readonly sessionName?: string;
  /** What names the VM, in place of QEMU's UUID and name. */
  readonly vm?: string;
  readonly taps: TapSettings;
  readonly syncOn: SyncOn;
  /** The least time between two synchronizations that held output asks for. */
  readonly syncMinIntervalMs: number;
}

/** What both modes work with. */
export interface ProtectContext {
  readonly reactor: Reactor;
  readonly settings: ProtectSettings;
  readonly support: MigrationSupport;
  readonly qmp: QmpClient;
  readonly link: SenderLink;
  readonly trigger: SyncTrigger;
  readonly still: StillVm;
  /** How QEMU's migrations come to us. */
  readonly channel: MigrationChannel;
  /** Between two checkpoints that nothing else asks for: `--sync-interval`, or less. */
  readonly interval: { ms: number };
  /** Temporary; the guardian knows it too. */
  readonly folder: string;
  readonly signal: AbortSignal;
}

/** QEMU answers nothing while its disks keep its main loop waiting: that is no reason to leave it. */
const PATIENCE_MS = 600_000;

=======
>>>>>>> 3d14d3d4cdb91f16fdc1a465494a79c4bbbc3355
/**
 * `kemari protect`: attaches to a running QEMU and keeps it synchronized, over lost secondaries
 * and back, until it is interrupted or the VM ends.
 *
 * ```text
 * connecting ──► protecting (COLO or snapshots) ──secondary lost──► VM released ──retry──► connecting
 *                      ├──the VM is shut down──► the secondary is told; a good end
 *                      ├──the guest sleeps, somebody ends QEMU's migration──► told; later: connecting
 *                      └──QEMU lost──► TransportError     signal ──► VM released, InterruptedError
 * ```
 *
 * Where the VM's disks or NICs go through us, an error that ends the protection ends the process
 * only when QEMU has let go of them.
 *
 * @throws {QemuError} QEMU cannot be protected, or refuses; {TransportError} QEMU is lost, or the
 *   secondary where no retry is wanted.
 */
export async function protect(
  settings: ProtectSettings,
  progress: ProgressLine,
  signal: AbortSignal,
): Promise<void> {
  const target = parseAddress(settings.target);
  if (target.kind === "stdio") {
    throw new UsageError("stdio: is no target for protect", { hint: "use exec:COMMAND" });
  }
  parseQmpAddress(settings.qmp);
  const reactor = new Reactor();
  const board = new ProtectBoard(target.text);
  let control: ControlServer | undefined;
  let taps: TapSet | undefined;
  try {
    if (settings.control !== undefined) {
      control = await ControlServer.open(settings.control, board.handlers, reactor, signal);
    }
    const opened = taps = await TapSet.open(settings.taps, reactor, signal);
    await protectTapped(settings, target, reactor, opened, progress, signal, board, {
      afterwards: (error, qmp) => serveOn(error, qmp, opened, reactor, signal),
      // QEMU flushes its disks on its way out, and may stand there for long (-no-shutdown).
      atEnd: () => opened.isUsed ? serveUntilUnused(opened, reactor, signal) : Promise.resolve(),
    });
  } finally {
    taps?.close();
    control?.close();
    reactor.close();
  }
}

/** What whoever has a VM protected wants to do beside that. */
export interface ProtectHooks {
  /** What to do when an error has ended the protection, while QEMU can still be talked to. */
  readonly afterwards?: (error: unknown, qmp: QmpClient) => Promise<void>;
  /** What to do when the VM was shut down. */
  readonly atEnd?: () => Promise<void>;
}

/** The rest, with the taps served: QEMU may start only now, and needs them. */
export async function protectTapped(
  settings: ProtectSettings,
  target: Address,
  reactor: Reactor,
  taps: TapSet,
  progress: ProgressLine,
  signal: AbortSignal,
  board: ProtectBoard,
  { afterwards = async () => {}, atEnd = async () => {} }: ProtectHooks = {},
): Promise<void> {
  const qmp = await connectQemu(settings.qmp, taps, reactor, board, signal);
  const line = new SupervisedLine(qmp, reactor);
  try {
    await protectVm(line, settings, target, reactor, taps, progress, signal, board);
  } catch (error) {
    line.ignoreEnd();
    if (error instanceof VmEnded) {
      log.info("the VM has ended: {reason}", { reason: error.reason });
      if (!signal.aborted) await atEnd();
      return;
    }
    if (!signal.aborted) await afterwards(error, qmp);
    throw error;
  } finally {
    line.ignoreEnd();
    await qmp.close().catch(() => {});
  }
}

/** The VM's disks and NICs are here: without us it would lose them too. */
async function serveOn(
  error: unknown,
  qmp: QmpClient,
  taps: TapSet,
  reactor: Reactor,
  signal: AbortSignal,
): Promise<void> {
  if (!taps.isUsed) return;
  log.error("{reason}; serving the taps on, until QEMU lets go of them", {
    reason: (error as Error).message,
  });
  // A VM that was stopped says nothing; one that somebody lets run goes on unprotected.
  followVm(qmp, () => taps.passThrough());
  await serveUntilUnused(taps, reactor, signal);
}
<<<<<<< HEAD

/** Supervises the VM behind a QMP connection, which stays the caller's to close. */
async function protectVm(
  line: SupervisedLine,
  settings: ProtectSettings,
  target: Address,
  reactor: Reactor,
  taps: TapSet,
  progress: ProgressLine,
  signal: AbortSignal,
  board: ProtectBoard,
): Promise<void> {
  const { qmp } = line;
  let support = await reactor.during(readMigrationSupport(qmp), signal);
  const refusal = refusalOf(support);
  if (refusal !== undefined) throw refusal;
  qmp.patienceMs = PATIENCE_MS;
  if (support.standsStill !== undefined) {
    board.waits("waiting for the VM to run");
    support = await untilProtectable(qmp, reactor, signal);
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
  let over = false;
  let asking = false;
  let waitsForVm = false;
  /** Whether QEMU knows how things stand. */
  let told = true;
  const guardian = startGuardian(settings.qmp, settings.onSecondaryLoss, folder);
  const still = new StillVm(qmp, support, folder);
  const channel = new MigrationChannel(reactor, qmp, folder);
  const interval = { ms: settings.syncIntervalMs };
  const trigger = new SyncTrigger(reactor, settings.syncMinIntervalMs, () => {
    taps.triggered();
    // Snapshots look at the trigger themselves; in COLO QEMU is told.
    if (mode !== "colo") return reactor.wake();
    // Between two sessions QEMU's settings are the operator's.
    if (over || link === undefined) return;
    // A QEMU that is in one, or was asked already, is not to be asked: it has been seen to hang.
    if (asking || link?.primary.dialogue.inCheckpoint) return;
    asking = true;
    qmp.run(triggerCheckpoint(interval.ms)).catch((error) => {
      if (!over && link !== undefined) reactor.fail(error);
    }).finally(() => asking = false);
  });
  taps.onHeld = (cause) => {
    if (link !== undefined && settings.syncOn.includes(cause)) trigger.request();
  };
  taps.onFull = () => {
    if (link !== undefined) trigger.request();
  };
  taps.onCheckpoint = () => trigger.begun();
  taps.onOverflow = (disk, heldBytes) => {
    if (link !== undefined) reactor.fail(tooSlow(target.text, disk, heldBytes));
  };
  taps.onEpochClosed = () => trigger.closed();
  // Stopping drains the disks, whoever stops the VM.
  followVm(qmp, () => {
    still.resumed();
    taps.vmRuns();
    link?.vmResumed();
    guardian.decide(settings.onSecondaryLoss);
    // Its answer came before that, but whoever waits for it hears of it later.
    asking = false;
    trigger.ended();
  }, () => {
    taps.vmStops();
    link?.primary.dialogue.vmStopped();
    // Killed, we must not have it run either.
    if (link?.primary.dialogue.isVmPaused) guardian.decide("stop");
  });
  const status = (): SenderStatus | EarlyStatus =>
    last === undefined ? { role: "sender", state: "connecting", peer: target.text, syncs: 0 } : {
      ...senderStatus(
        last,
        link === undefined ? "unprotected" : waitsForVm ? "waiting for the VM to run" : undefined,
        mode === "colo" ? "colo" : "snapshots",
        target.text,
        rate,
        settings.compress,
      ),
      vm: vmStatus(vm),
      outside: outside.found,
      ...(taps.isEmpty ? {} : { taps: taps.status }),
    };
  board.show(status, () => senderDurations(last, taps.recentHolds()));
  outside.begin(reactor);
  const stopMeter = reactor.every(250, () => {
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
      try {
        const peer = await connectSecondary(target, reactor, signal, first || !settings.retry);
        const marks = await reactor.during(ImageMarks.place(taps.images), signal);
        last = link = new SenderLink(reactor, peer, { ...linkOptions, marks });
        link.onFirstCommit = () => refusals.over();
        await reactor.run(() => last!.ready, signal);
        refusals.connected(link.peerSoftware);
        interval.ms = settings.syncIntervalMs;
        // Somebody may have paused it while it was unprotected.
        if (!first) {
          waitsForVm = true;
          support = await untilProtectable(qmp, reactor, signal);
          waitsForVm = false;
        }
        const context = {
          reactor,
          settings,
          support,
          qmp,
          link,
          trigger,
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
        const wasLinked = lost?.ready === true;
        link = undefined;
        const { onSecondaryLoss } = settings;
        const { isFull: isQuiet } = refusals;
        const parts = {
          ...{ qmp, reactor, folder, still, taps, guardian, onSecondaryLoss, ask, isQuiet, signal },
        };
        told = false;
        line.ignoreEnd();
        const parted = await partFromSecondary(error, lost, parts);
        told = parted.told;
        const tries = { retry: settings.retry, wasLinked, isFirst: first, hasTaps: !taps.isEmpty };
        const next = nextTry(parted.known, tries);
        if (next === "never") throw parted.error;
        line.heedEnd();
        await refusals.wait(next, parted.known.end, error, reactor, signal);
      }
    }
  } finally {
    over = true;
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
=======
>>>>>>> 3d14d3d4cdb91f16fdc1a465494a79c4bbbc3355
