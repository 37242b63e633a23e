import { getLogger } from "@logtape/logtape";
import {
  afterSentFarewell,
  type AtSentEnd,
  type SentEnd,
  sentFarewell,
} from "../decisions/sent_end.ts";
import type { Answer } from "../decisions/primary_end.ts";
import type { VmFate } from "../decisions/vm_fate.ts";
import type { VmIdentity } from "../decisions/whose_replica.ts";
import { exitCodeOf, InterruptedError, TransportError, WireError } from "../errors.ts";
import type { PrimaryEvent } from "../replica/primary/primary.ts";
import { formatBytes } from "../units.ts";
import { compressionOf } from "./link/compress_settings.ts";
import { CONNECT_TIMEOUT_MS, connectPeer, type PeerConnection } from "./link/peer_connection.ts";
import { openLink } from "./link/open_link.ts";
import type { SenderLink } from "./link/sender_link.ts";
import { inWordsOfCommand } from "./command_end.ts";
import type { SendEnds } from "./send_ends.ts";
import type { SendSettings } from "./send_settings.ts";
import { givenUp, handoverInDoubt, hasGivenUsUp } from "./link/lost_secondary.ts";
import { identityOfSent, putDelayBack, releaseSentVm, SentVm, stopSentVm } from "./sent_vm.ts";
import { readDurations, senderStatus, vmStatus } from "./status/sender_status.ts";
import { summarizeStatus } from "./status/summarize_status.ts";
import type { SenderStatus } from "../control/sender_status.ts";
import type { Address } from "./system/address.ts";
import { ControlServer } from "./system/control_server.ts";
import { besides } from "./system/failure_beside.ts";
import type { ProgressLine } from "./system/progress_line.ts";
import { RateMeter } from "./system/rate_meter.ts";
import { Reactor } from "./system/reactor.ts";
import { SOFTWARE } from "./system/software.ts";
import { serveUntilUnused } from "./taps/serve_until_unused.ts";
import type { PrimaryTapDevices } from "./taps/primary_tap_devices.ts";
import type { LinkGuard } from "./tls/link_guard.ts";
import { QmpClient } from "./vm/qmp_client.ts";
import { isTakenOver } from "./vm/release_vm.ts";
import { fateInWords, PAUSED } from "./vm/vm_end_words.ts";

const log = getLogger(["kemari", "send"]);

const HOARDS = "QEMU goes on describing its state, and keeps 50 to 100 KB of memory for every " +
  "checkpoint because of that: start the VM with -machine …,suppress-vmdesc=on, or let kemari " +
  "protect set it";

/** The states of a {@link Sending}. */
type SendingState = "connecting" | "linked" | "parting" | "serving-on" | "closed";

/**
 * A `kemari send`: a session with the secondary, with the stream that QEMU gives to this process.
 *
 * ```text
 * connecting ──connect()──► linked ──handed over: run() returns──────────────────────► closed
 *      └──────any error───────┴──► parting ──VM shut down: part() returns──► closed
 *                                     ├──QEMU uses our taps──► serving-on ──► closed
 *                                     └──part() throws───────────────────────► closed
 * ```
 *
 * To be called in this order: connect(), run(); part() with an error of either; close() always.
 */
export class Sending {
  readonly #settings: SendSettings;
  readonly #target: Address;
  readonly #guard: LinkGuard;
  readonly #progress: ProgressLine;
  readonly #signal: AbortSignal;
  readonly #ends: SendEnds;
  readonly #reactor = new Reactor();
  readonly #rate = new RateMeter();
  #state: SendingState = "connecting";
  #hasChannel = true;
  #taps: PrimaryTapDevices | undefined;
  #peer: PeerConnection | undefined;
  #link: SenderLink | undefined;
  #identity: VmIdentity = {};
  #control: ControlServer | undefined;
  #qmp: QmpClient | undefined;
  #vm: SentVm | undefined;

  /** @param ends Owned by this object. */
  constructor(
    settings: SendSettings,
    target: Address,
    guard: LinkGuard,
    progress: ProgressLine,
    signal: AbortSignal,
    ends: SendEnds,
  ) {
    this.#settings = settings;
    this.#target = target;
    this.#guard = guard;
    this.#progress = progress;
    this.#signal = signal;
    this.#ends = ends;
    ends.front?.watch(this.#reactor);
  }

  get state(): SendingState {
    return this.#state;
  }

  /** Opens the taps, begins a session with the secondary, and takes QEMU's stream. */
  async connect(): Promise<void> {
    const reactor = this.#reactor;
    const signal = this.#signal;
    const taps = this.#taps = await this.#ends.openTaps(this.#settings.taps, reactor, signal);
    this.#identity = await reactor.during(identityOfSent(this.#settings), signal);
    const link = await this.#connectSecondary(taps);
    await this.#showStatus(link, taps);
    link.onEvent = (event) => this.#tell(event, link);
    const { input, output } = this.#ends;
    link.attach({ input: input.fd, output: output.fd, name: "QEMU" });
    this.#state = "linked";
    // Only then: a QEMU whose stream is not read may not answer on its monitor either.
    await this.#connectMonitor(link, taps);
  }

  /** @returns Resolves when the secondary is the VM's host. */
  async run(): Promise<void> {
    const link = this.#link!;
    const hasLeft = () => this.#vm?.hasLeftColo === true && !link.handingOver;
    await this.#reactor.run(() => link.handedOver || hasLeft(), this.#signal);
    if (link.handedOver) return;
    throw new TransportError("QEMU", "read", "QEMU has left COLO: no checkpoint follows", {
      party: "qemu",
    });
  }

  /**
   * Ends the session, and releases the VM; serves its disks and NICs until QEMU has disconnected.
   *
   * @param error The error that has ended the session.
   * @returns Resolves if the VM was handed over, or was shut down and the secondary knows that.
   * @throws the reason in all other cases.
   */
  async part(error: unknown): Promise<void> {
    const link = this.#link;
    // The VM is the secondary's: later errors do not matter.
    if (link?.handedOver) return;
    this.#state = "parting";
    this.#vm?.rest();
    const isInDoubt = link?.handingOver === true;
    const fate = isTheirs(error) ? undefined : await this.#vm?.fateBehind(error);
    const known = { ...this.#atEnd(error, fate), isInDoubt };
    const end = afterSentFarewell(known, await this.#sayFarewell(known, fate));
    if (end.isGood) {
      log.info("the VM has ended: {reason}; the secondary knows, and starts nothing", {
        reason: fateInWords(fate),
      });
      this.#taps?.passThrough();
      return;
    }
    const isGivenUp = end.taps === "hold-until-resumed" && fate?.kind !== "ended";
    const cause = isGivenUp ? givenUp(error) : await this.#causeOf(error, isInDoubt);
    if (end.qemu !== "nothing") await this.#tellQemu(end.qemu, end, cause);
    if (end.servesOn) await this.#serveOn(end, cause);
    throw cause;
  }

  /** The error to report: a handover in doubt is reported before its cause. */
  async #causeOf(error: unknown, isInDoubt: boolean): Promise<unknown> {
    const cause = await inWordsOfCommand(error, this.#peer);
    if (!isInDoubt || isTheirs(error)) return cause;
    const doubt = handoverInDoubt(this.#target.text, cause);
    if (!(error instanceof InterruptedError)) return doubt;
    // The exit status says only that the interruption was carried out: this is logged as well.
    log.error("{reason}; {hint}", { reason: doubt.message, hint: doubt.hint });
    return error;
  }

  async close(): Promise<void> {
    this.#state = "closed";
    this.#taps?.close();
    await this.#qmp?.close();
    this.#link?.close();
    await this.#link?.unmark();
    this.#control?.close();
    this.#closeChannel();
    this.#reactor.close();
  }

  async #connectSecondary(taps: PrimaryTapDevices): Promise<SenderLink> {
    const reactor = this.#reactor;
    const settings = this.#settings;
    const peer = this.#peer = await connectPeer(
      this.#target,
      this.#guard,
      reactor,
      CONNECT_TIMEOUT_MS,
      this.#signal,
    );
    const options = {
      ...settings,
      vm: this.#identity,
      compression: compressionOf(settings),
      taps,
      software: settings.sessionName ? `${SOFTWARE} (${settings.sessionName})` : SOFTWARE,
    };
    return this.#link = await openLink(reactor, peer, options, taps.images, this.#signal);
  }

  async #connectMonitor(link: SenderLink, taps: PrimaryTapDevices): Promise<void> {
    const { qmp: path } = this.#settings;
    if (path === undefined) return;
    const reactor = this.#reactor;
    // An error of the link meanwhile is not the monitor's, and ends the session.
    const connecting = QmpClient.connect(path, { reactor });
    const monitor = connecting.catch((error) => unwatched(error, taps));
    let qmp: QmpClient | undefined;
    try {
      qmp = await reactor.during(monitor, this.#signal);
    } catch (error) {
      // QEMU serves one client at a time: the one that reports the loss must not wait for this one.
      void connecting.then((late) => late.close(), () => {});
      throw error;
    }
    if (qmp === undefined) return;
    this.#qmp = qmp;
    const vm = this.#vm = new SentVm(qmp, link, taps, this.#settings, reactor);
    const looked = vm.look().catch((error) => {
      // After a handover QEMU may end.
      if (!link.handedOver) unwatched(error, taps);
    });
    await reactor.during(looked, this.#signal);
  }

  async #showStatus(link: SenderLink, taps: PrimaryTapDevices): Promise<void> {
    const status = () => this.#status(link, taps);
    const { control } = this.#settings;
    if (control !== undefined) {
      const durations = () => readDurations(link, taps.recentHolds());
      const handlers = { status, durations };
      this.#control = await ControlServer.open(control, handlers, this.#reactor, this.#signal);
    }
    this.#reactor.every(250, () => {
      this.#rate.update(link.primary.counters.committed);
      if (this.#progress.isShown) this.#progress.set(summarizeStatus(status()));
    });
  }

  #status(link: SenderLink, taps: PrimaryTapDevices): SenderStatus {
    const { compress } = this.#settings;
    return {
      ...senderStatus(link, undefined, undefined, this.#target.text, this.#rate, compress),
      vm: vmStatus(this.#identity),
      ...(taps.isEmpty ? {} : { taps: taps.status }),
    };
  }

  #tell(event: PrimaryEvent, link: SenderLink): void {
    switch (event.kind) {
      case "colo":
        log.info("COLO: the VM is protected, checkpoints follow");
        if (link.primary.hoards) log.warn(HOARDS);
        return;
      case "paused":
        log.info(PAUSED);
        return;
      case "handed-over":
        log.info("handed over after transaction {transaction}: {bytes} sent", {
          transaction: event.transaction,
          bytes: formatBytes(link.wireBytes),
        });
    }
  }

  #atEnd(error: unknown, fate: VmFate | undefined): Omit<AtSentEnd, "isInDoubt"> {
    const dialogue = this.#link?.primary.dialogue;
    return {
      isLinked: this.#link !== undefined,
      said: isTakenOver(error) ? "taken-over" : hasGivenUsUp(error) ? "given-up" : undefined,
      vm: fate?.kind,
      isStreamFault: isStreamFault(error),
      wasInColo: dialogue?.requested === true,
      mayBeColo: dialogue?.mayBeColo === true,
      hasMonitor: this.#settings.qmp !== undefined,
      isPaused: this.#vm?.isPaused === true,
      isInterrupted: this.#signal.aborted,
    };
  }

  async #sayFarewell(known: AtSentEnd, fate: VmFate | undefined): Promise<Answer> {
    const tells = sentFarewell(known);
    if (tells === "nothing") return "unheard";
    try {
      return await this.#link!.leave(tells, fateInWords(fate)) ? "heard" : "unheard";
    } catch (theirs) {
      return hasGivenUsUp(theirs) ? "given-up" : "taken-over";
    }
  }

  /**
   * Ends COLO. The taps go on meanwhile: QEMU may wait for its disk before it answers.
   */
  async #tellQemu(action: "continue" | "stop", end: SentEnd, cause: unknown): Promise<void> {
    // The secondary waits for the end of the connection before its VM runs: the VM here stops
    // first.
    if (end.keepsConnection) this.#link!.quiesce();
    else this.#link!.close();
    await this.#qmp?.close();
    // A QEMU that waits for its channel or its command does not answer its monitor.
    this.#goOnAlone(cause);
    const { qmp } = this.#settings;
    const delayMs = this.#vm?.changedDelayMs;
    // QEMU drains the disks before it answers, and its STOP is not listened to then.
    if (action === "stop") this.#taps?.vmStops();
    const beside = besides("QEMU is told that its secondary is lost");
    if (end.taps === "hold-until-resumed" && end.servesOn) {
      const resumed = () => {
        log.warn("somebody has let the VM run here: its output leaves, unprotected");
        this.#taps?.passThrough();
        this.#reactor.wake();
      };
      this.#qmp = await this.#reactor.seeThrough(stopSentVm(qmp!, delayMs, resumed), beside);
    } else await this.#reactor.seeThrough(releaseSentVm(qmp!, action, delayMs), beside);
    this.#link!.close();
  }

  /** Serves the taps on: without this process the VM would lose its disks and NICs too. */
  async #serveOn(end: SentEnd, cause: unknown): Promise<void> {
    const { taps: held, putsBack } = end;
    const taps = this.#taps;
    // An interruption ends this too.
    if (!taps?.isUsed || this.#signal.aborted) return;
    this.#state = "serving-on";
    // If QEMU was told something, the link was closed with that.
    if (end.qemu === "nothing") {
      // Other events of a link that is watched would end the serving.
      if (end.keepsConnection) this.#link?.quiesce();
      else this.#link?.close();
    }
    if (held === "pass") taps.passThrough();
    log.error("{reason}; serving the taps on, unprotected, until QEMU disconnects", {
      reason: (cause as Error).message,
    });
    this.#goOnAlone(cause);
    // Only now: a QEMU that waits for the end of its command does not answer its monitor.
    if (putsBack) {
      // QEMU serves one client at a time.
      await this.#qmp?.close();
      const back = putDelayBack(this.#settings.qmp!, this.#vm?.changedDelayMs);
      await this.#reactor.during(back, this.#signal);
    }
    await serveUntilUnused(taps, this.#reactor, this.#signal);
  }

  /** Ends this command, from QEMU's point of view. */
  #goOnAlone(cause: unknown): void {
    this.#link?.detach();
    this.#closeChannel();
    this.#ends.front?.dismiss(exitCodeOf(cause));
  }

  #closeChannel(): void {
    if (!this.#hasChannel) return;
    this.#hasChannel = false;
    this.#ends.input.release();
    this.#ends.output.release();
  }
}

/** Whether the secondary has said that it has taken over, or that it may have by now. */
function isTheirs(error: unknown): boolean {
  return isTakenOver(error) || hasGivenUsUp(error);
}

/** Without taps the monitor is needed only at the end, and left to operators until then. */
function unwatched(error: unknown, taps: PrimaryTapDevices): undefined {
  if (!(error instanceof TransportError) || !taps.isEmpty) throw error;
  log.warn("{reason}: the secondary will take an orderly end of the VM for a crash", {
    reason: error.message,
  });
}

/** Whether QEMU's stream is at fault, rather than its channel or the peer. */
function isStreamFault(error: unknown): boolean {
  return error instanceof WireError && ["migration", "vmdesc", "colo"].includes(error.protocol);
}
