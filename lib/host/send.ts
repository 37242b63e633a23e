import { getLogger } from "@logtape/logtape";
import type { VmIdentity } from "../decisions/whose_replica.ts";
import { exitCodeOf, TransportError, UsageError, WireError } from "../errors.ts";
import { parseAddress } from "./system/address.ts";
import { adopt } from "./system/channel.ts";
import { compressionOf, type CompressSettings } from "./link/compression.ts";
import { parseControlPath } from "./system/control_address.ts";
import { ControlServer } from "./system/control.ts";
import { statusLine } from "./status/status_line.ts";
import { senderDurations, senderStatus, vmStatus } from "./status/sender_status.ts";
import { formatBytes } from "../units.ts";
import { connectPeer, type PeerConnection } from "./link/peer.ts";
import { parseQmpAddress } from "./vm/qmp_address.ts";
import { QmpClient } from "./vm/qmp_client.ts";
import { RateMeter } from "./system/rate_meter.ts";
import { Reactor } from "./system/reactor.ts";
import { isTakenOver, type OnSecondaryLoss, releaseVm, staysInColo } from "./vm/release_vm.ts";
import { ImageMarks } from "./image/image_marks.ts";
import type { SenderLinkOptions } from "./link/link_options.ts";
import type { SendFront } from "./send_front.ts";
import { SenderLink } from "./link/sender_link.ts";
import { triggerCheckpoint } from "../qmp/migration.ts";
import { serveUntilUnused } from "./taps/serve_taps.ts";
import { SentVm } from "./sent_vm.ts";
import { SOFTWARE } from "./system/software.ts";
import { namedVm, readVmIdentity } from "./vm/vm_identity.ts";
import { TapSet } from "./taps/tap_set.ts";
import type { SyncOn, TapSettings } from "./taps/tap_status.ts";
import type { ProgressLine } from "./system/progress_line.ts";
import { CONNECT_TIMEOUT_MS } from "./link/peer.ts";
import { hasGivenUsUp } from "./link/lost_secondary.ts";
import { PAUSED } from "./vm/vm_end_words.ts";
import { never } from "./system/never.ts";

const log = getLogger(["kemari", "send"]);

export interface SendSettings
  extends
    Omit<SenderLinkOptions, "software" | "taps" | "compression" | "vm" | "marks">,
    CompressSettings {
  readonly target: string;
  readonly control?: string;
  readonly sessionName?: string;
  /** What names the VM, in place of QEMU's UUID and name. */
  readonly vm?: string;
  /** QMP socket by which a VM that COLO left stopped is set running when the secondary is lost. */
  readonly qmp?: string;
  readonly taps: TapSettings;
  readonly syncOn: SyncOn;
  readonly syncMinIntervalMs: number;
  /** What QEMU's own timer is set to whenever a synchronization is asked for. */
  readonly syncIntervalMs: number;
}

/**
 * `kemari send`: QEMU's stream on stdin, its return path on stdout, transactions to the target.
 *
 * @param front The process that QEMU waits for, if it is another one.
 * @returns When a stream that ends has been committed and handed over.
 * @throws {WireError} the stream or the peer is at fault; {TransportError} either is lost.
 */
export async function send(
  settings: SendSettings,
  progress: ProgressLine,
  signal: AbortSignal,
  front?: SendFront,
): Promise<void> {
  const address = parseAddress(settings.target);
  if (address.kind === "stdio") {
    throw new UsageError("stdio: is no target for send: stdin and stdout belong to QEMU", {
      hint: "use exec:COMMAND to speak through another program's stdin and stdout",
    });
  }
  if (settings.qmp !== undefined) parseQmpAddress(settings.qmp);
  if (settings.control !== undefined) parseControlPath(settings.control);
  const reactor = new Reactor();
  front?.watch(reactor);
  const input = adopt(0, "read");
  const output = adopt(1, "write");
  let hasChannel = true;
  const closeChannel = () => {
    if (!hasChannel) return;
    hasChannel = false;
    input.release();
    output.release();
  };
  /** To QEMU, this command has ended now. */
  const goOnAlone = (error: unknown) => {
    link?.detach();
    closeChannel();
    front?.dismiss(exitCodeOf(error));
  };
  const rate = new RateMeter();
  let peer: PeerConnection | undefined;
  let link: SenderLink | undefined;
  let control: ControlServer | undefined;
  let taps: TapSet | undefined;
  let qmp: QmpClient | undefined;
  let vm: SentVm | undefined;
  try {
    taps = await TapSet.open(settings.taps, reactor, signal);
    const tapped = taps;
    const identity = await reactor.during(identityOf(settings), signal);
    peer = await connectPeer(address, reactor, CONNECT_TIMEOUT_MS, signal);
    link = new SenderLink(reactor, peer, {
      ...settings,
      marks: await reactor.during(ImageMarks.place(taps.images), signal),
      vm: identity,
      compression: compressionOf(settings),
      taps,
      software: settings.sessionName ? `${SOFTWARE} (${settings.sessionName})` : SOFTWARE,
    });
    const session = link;
    const status = () => ({
      ...senderStatus(session, undefined, undefined, address.text, rate, settings.compress),
      vm: vmStatus(identity),
      ...(tapped.isEmpty ? {} : { taps: tapped.status }),
    });
    if (settings.control !== undefined) {
      const durations = () => senderDurations(session, tapped.recentHolds());
      const handlers = { status, durations };
      control = await ControlServer.open(settings.control, handlers, reactor, signal);
    }
    reactor.every(250, () => {
      rate.update(session.primary.counters.committed);
      if (progress.isShown) progress.set(statusLine(status()));
    });
    link.onEvent = (event) => {
      switch (event.kind) {
        case "colo":
          log.info("COLO: the VM is protected, checkpoints follow");
          if (session.primary.hoards) log.warn(HOARDS);
          return;
        case "paused":
          log.info(PAUSED);
          return;
        case "handed-over":
          log.info("handed over after transaction {transaction}: {bytes} sent", {
            transaction: event.transaction,
            bytes: formatBytes(session.wireBytes),
          });
          return;
      }
    };
    link.attach({ input: input.fd, output: output.fd, name: "QEMU" });
    // Behind that: a QEMU whose stream is not read may not come to answer at its monitor either.
    if (settings.qmp !== undefined) {
      qmp = await reactor.during(QmpClient.connect(settings.qmp, { reactor }), signal)
        .catch((error) => unwatched(error, tapped));
    }
    if (qmp !== undefined) vm = new SentVm(qmp, session, tapped, settings, reactor);
    await reactor.run(() => session.handedOver, signal);
  } catch (error) {
    vm?.rest();
    // One that has given us up may run the VM by now, and is not asked: see `primary_end.ts`.
    let takenOver = isTakenOver(error) || hasGivenUsUp(error);
    if (link?.handingOver) {
      log.error(
        "the handover broke off: the secondary may run the VM. Make sure that it does not " +
          "(kemari status there) before the VM goes on here",
      );
    }
    const fate = takenOver || link === undefined ? undefined : await vm?.part(error);
    if (fate === "ended") {
      taps?.passThrough();
      return;
    }
    const wasInColo = link?.primary.dialogue.requested === true;
    if (!takenOver && link !== undefined && isStreamFault(error) && !wasInColo) {
      // QEMU finds us gone, its migration fails, and its VM goes on: nobody is to take over.
      await link.leave().catch(() => {});
    }
    // Where QEMU has ended the migration itself, it has nothing to be told, and may wait for our end.
    const isToBeTold = takenOver || fate === undefined && link?.primary.mayBeColo;
    if (settings.qmp !== undefined && link !== undefined && isToBeTold) {
      // Whoever interrupts us means the VM to go on here.
      if (signal.aborted && !takenOver) await link.leave().catch(() => takenOver = true);
      // The secondary waits for the connection's end before its VM runs: ours stops first.
      if (takenOver) link.quiesce();
      else link.close();
      await qmp?.close();
      // A QEMU that waits for its channel, or for the end of the command that it knows, hears nothing.
      goOnAlone(error);
      // The taps go on meanwhile: QEMU may wait for its disk before it answers.
      const action = takenOver || vm?.isPaused ? "stop" : "continue";
      const told = release(settings.qmp, action, vm?.changedDelayMs);
      await reactor.during(told, never);
      link.close();
    }
    if (taps?.isUsed && !signal.aborted) {
      // The VM's disks and NICs are here: without us it would lose them too.
      if (!takenOver) taps.passThrough();
      log.error("{reason}; serving the taps on, unprotected, until QEMU lets go of them", {
        reason: (error as Error).message,
      });
      goOnAlone(error);
      // Only now: a QEMU that waits for the end of the command that it knows hears nothing.
      if (fate === "here") await reactor.during(putBack(settings.qmp!, vm?.changedDelayMs), signal);
      await serveUntilUnused(taps, reactor, signal);
    }
    throw await explained(error, peer);
  } finally {
    taps?.close();
    await qmp?.close();
    link?.close();
    control?.close();
    closeChannel();
    reactor.close();
  }
}

/** A QEMU that writes its stream may not come to answer before the stream is read. */
const IDENTITY_MS = 1000;

/** Whose stream it is, as far as can be told before the stream is read. */
async function identityOf({ qmp, vm }: SendSettings): Promise<VmIdentity> {
  if (qmp === undefined) return namedVm(vm);
  try {
    await using client = await QmpClient.connect(qmp, { timeoutMs: IDENTITY_MS });
    client.patienceMs = IDENTITY_MS;
    return await readVmIdentity(client, vm);
  } catch (error) {
    if (!(error instanceof TransportError)) throw error;
    return namedVm(vm);
  }
}

/** Without taps the monitor is of use at the end only, and its one place may be an operator's. */
function unwatched(error: unknown, taps: TapSet): undefined {
  if (!(error instanceof TransportError) || !taps.isEmpty) throw error;
  log.warn("{reason}: the secondary will take an orderly end of the VM for a death", {
    reason: error.message,
  });
}

const HOARDS = "QEMU goes on describing its state, and keeps 50 to 100 KB of memory for every " +
  "checkpoint because of that: start the VM with -machine …,suppress-vmdesc=on, or let kemari " +
  "protect set it";

/** Whether QEMU's stream is what is wrong, rather than its channel or the peer. */
function isStreamFault(error: unknown): boolean {
  return error instanceof WireError && ["migration", "vmdesc", "colo"].includes(error.protocol);
}

/** How long the end of a command may come after the end of its output. */
const EXIT_WAIT_MS = 500;

/** A connection that a command was says less than how the command ended. */
async function explained(error: unknown, peer: PeerConnection | undefined): Promise<unknown> {
  if (peer?.exitCode === undefined) return error;
  if (!(error instanceof TransportError) || error.party !== "peer") return error;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeout = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), EXIT_WAIT_MS);
  });
  const code = await Promise.race([peer.exitCode, timeout]);
  clearTimeout(timer);
  if (code === undefined) return error;
  return new TransportError(peer.name, error.phase, `the command ended with exit code ${code}`, {
    party: "peer",
    hint: "see what it says; it has to run `kemari recv stdio: --exec …` in the end",
    cause: error,
  });
}

/** Gives a QEMU whose migration is over the operator's time between checkpoints back. */
async function putBack(qmp: string, delayMs: number | undefined): Promise<void> {
  if (delayMs === undefined) return;
  try {
    await using client = await QmpClient.connect(qmp, { timeoutMs: 2000 });
    await client.run(triggerCheckpoint(delayMs));
  } catch (error) {
    log.warn("x-checkpoint-delay was not put back: {reason}", { reason: (error as Error).message });
  }
}

/** Between two looks at a VM that has to stay in COLO; the monitor is free for others meanwhile. */
const LATER_MS = 1000;

/** Waits as long as COLO's end would harm the VM: a guest that sleeps would be woken. */
async function untilToBeTold(qmp: string): Promise<void> {
  for (let told = false;; told = true) {
    const state = await mustWait(qmp);
    if (state === undefined) return;
    if (!told) {
      log.info("the VM is {state}: QEMU is told that it is unprotected when that is over", {
        state,
      });
    }
    await new Promise((resolve) => setTimeout(resolve, LATER_MS));
  }
}

async function mustWait(qmp: string): Promise<string | undefined> {
  await using client = await QmpClient.connect(qmp, { timeoutMs: 2000 });
  return await staysInColo(client);
}

/** Ends COLO in a QEMU whose secondary is lost, so that its VM does not stand still for ever. */
async function release(
  qmp: string,
  action: OnSecondaryLoss,
  delayMs: number | undefined,
): Promise<void> {
  try {
    await untilToBeTold(qmp);
    await using client = await QmpClient.connect(qmp, { timeoutMs: 2000 });
    const state = await releaseVm(client, action);
    // Only now: in COLO it would ask for another checkpoint.
    if (delayMs !== undefined) await client.run(triggerCheckpoint(delayMs));
    log.warn("the VM is {state}, unprotected", { state });
  } catch (error) {
    log.error("QEMU was not told that the secondary is lost: {reason}", {
      reason: (error as Error).message,
    });
  }
}
