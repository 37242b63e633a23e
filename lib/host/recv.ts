import { getLogger } from "@logtape/logtape";
import { afterFailedTakeover, type TakeoverCause } from "../decisions/takeover_plan.ts";
import { TransportError } from "../errors.ts";
import { CopyOwner } from "./home/copy_owner.ts";
import { ReplicaHome } from "./home/replica_home.ts";
import { ReplicaOwner } from "./home/replica_owner.ts";
import { lookForSameImages } from "./image/image_marks.ts";
import { ReceiverHost } from "./receive/receiver_host.ts";
import { freeMemoryBytes } from "./ram_dir/ram_room.ts";
import { letInBySsh } from "./let_in_by_ssh.ts";
import { SessionKeys } from "../keys/session_keys.ts";
import { checkRecvSettings, goesToStdout, type RecvSettings } from "./recv_settings.ts";
import type { AttachPlace, AttachRequest } from "../control/attach_request.ts";
import type { ProtectRequest } from "../control/protect_request.ts";
import type { ReceiverStatus } from "../control/receiver_status.ts";
import type { EarlyEndStatus, EndStatus } from "../control/end_status.ts";
import { receiverStatus } from "./status/receiver_status.ts";
import { summarizeStatus } from "./status/summarize_status.ts";
import { Survivor } from "./survivor.ts";
import type { ListenAddress } from "./system/address.ts";
import { isUnread } from "./system/channel.ts";
import { ControlServer } from "./system/control_server.ts";
import type { ProgressLine } from "./system/progress_line.ts";
import { RateMeter } from "./system/rate_meter.ts";
import { Reactor } from "./system/reactor.ts";
import { SOFTWARE } from "./system/software.ts";
import { FailoverRequests } from "./takeover/failover_requests.ts";
import { isFence } from "./takeover/fence.ts";
import { watchFirstPacket } from "./takeover/watch_first_packet.ts";
import { ReplicaGate } from "./takeover/replica_gate.ts";
import { Standby } from "./takeover/standby.ts";
import { takeOver } from "./takeover/take_over.ts";
import { formatTakeover, TakeoverClock } from "./takeover/takeover_clock.ts";
import {
  AGAIN_MS,
  takeoverFailure,
  tellKept,
  tellSpent,
  tellWithoutSecondTry,
} from "./takeover/takeover_failure.ts";
import type { StreamConsumer } from "./takeover/write_replica.ts";
import { SecondaryTapDevices } from "./taps/secondary_tap_devices.ts";
import { LinkGuard } from "./tls/link_guard.ts";

const log = getLogger(["kemari", "recv"]);

const TICK_MS = 250;
/** How long answers on the control socket have to be written before the loop ends. */
const ANSWER_MS = 50;

/**
 * `kemari recv`: transactions in; on activation one complete migration stream on stdout, or into
 * the command's stdin.
 *
 * @returns The command's exit code, or 0.
 * @throws {TransportError} on loss if the settings want that, or if activation is impossible.
 */
export async function recv(
  settings: RecvSettings,
  progress: ProgressLine,
  signal: AbortSignal,
): Promise<number> {
  const listen = checkRecvSettings(settings);
  // A sender that comes by ssh is announced at the control socket.
  const keys = settings.control === undefined ? undefined : new SessionKeys();
  const guard = LinkGuard.open(settings.security, "receiver", listen, keys);
  return await new Reception(settings, listen, guard, progress, signal).run();
}

/** The parts of `recv`, which are opened together with the taps. */
interface Side {
  readonly taps: SecondaryTapDevices;
  readonly receiver: ReceiverHost;
  readonly survivor: Survivor;
}

/** The states of a {@link Reception}. */
type ReceptionState =
  | { readonly at: "starting" }
  /** The replica of an earlier recv is being checked. */
  | { readonly at: "recovering"; readonly side: Side }
  /** Senders may come; {@link ReceiverHost.state} has the details. */
  | { readonly at: "open"; readonly side: Side }
  /** The VM runs here. */
  | { readonly at: "active"; readonly side: Side; readonly consumer: StreamConsumer | undefined }
  /** The VM may have run here, and has ended: the replica is of no use any more. */
  | { readonly at: "spent"; readonly side: Side };

/**
 * One run of `kemari recv`: opens its parts, hands a replica over to its QEMU, and closes them.
 *
 * ```text
 * starting ──taps──► recovering ──► open ──a takeover──► active ──the VM does not need us──► over
 *                                   ▲  │                    spent: it ran, and has ended ──► over
 *                                   └──┘ a takeover failed, and may be tried again, or is by itself
 * ```
 */
class Reception {
  readonly #settings: RecvSettings;
  readonly #listen: ListenAddress;
  readonly #guard: LinkGuard;
  readonly #progress: ProgressLine;
  readonly #signal: AbortSignal;
  readonly #home: ReplicaHome;
  readonly #standby: Standby | undefined;
  readonly #gate: ReplicaGate;
  readonly #reactor: Reactor;
  readonly #rate = new RateMeter();
  readonly #failovers = new FailoverRequests();
  #control: ControlServer | undefined;
  /** The present or last takeover. */
  #takeover: TakeoverClock | undefined;
  #state: ReceptionState = { at: "starting" };
  /** What has kept the takeover that is tried again by itself from succeeding. */
  #whyNot: string | undefined;

  /** @throws {TransportError} if the replica's folder cannot be used; nothing is left open. */
  constructor(
    settings: RecvSettings,
    listen: ListenAddress,
    guard: LinkGuard,
    progress: ProgressLine,
    signal: AbortSignal,
  ) {
    this.#settings = settings;
    this.#listen = listen;
    this.#guard = guard;
    this.#progress = progress;
    this.#signal = signal;
    const home = this.#home = ReplicaHome.open({
      ...settings,
      hasSharedDisks: settings.disks.some(({ mode }) => mode === "shared"),
    });
    const standby = this.#standby = settings.standby === undefined
      ? undefined
      : new Standby(settings.standby, home.dir!.makeSocketFolder());
    if (standby !== undefined) home.dir!.onImage = (files) => standby.image(files);
    this.#gate = new ReplicaGate(standby);
    this.#reactor = new Reactor();
  }

  /** The state as `kemari status` calls it. */
  get state(): ReceiverStatus["state"] {
    const state = this.#state;
    if (state.at === "starting" || state.at === "recovering") return "starting";
    return state.side.receiver.state;
  }

  /** See {@link recv}. To be called once. */
  async run(): Promise<number> {
    try {
      const side = await this.#open();
      for (;;) {
        const verdict = await side.receiver.receive(this.#signal);
        if (verdict === "vm-ended") return 0;
        const taken = await this.#activate(side, verdict);
        if (taken !== undefined) return await side.survivor.live(taken.consumer, this.#signal);
      }
    } finally {
      await this.#close();
    }
  }

  /** @throws {TransportError} as long as nothing can be asked of this end. */
  get #side(): Side {
    const state = this.#state;
    if (state.at !== "starting" && state.at !== "recovering") return state.side;
    throw new TransportError("recv", "connect", "this end is still starting", {
      party: "user",
      hint: "ask again in a moment; kemari status shows when it listens",
    });
  }

  async #open(): Promise<Side> {
    const { control, nets, disks, replay } = this.#settings;
    const reactor = this.#reactor;
    const signal = this.#signal;
    if (control !== undefined) {
      this.#control = await ControlServer.open(
        control,
        {
          status: () => this.#status(),
          failover: (stale) => this.#failover(stale),
          protect: (request, gone) => this.#protect(request, gone),
          attach: (request, passed) => this.#attach(request, passed),
        },
        reactor,
        signal,
      );
    }
    const taps = await SecondaryTapDevices.open(nets, disks, reactor, signal, replay.input);
    const receiver = this.#receiverWith(taps);
    const side = { taps, receiver, survivor: new Survivor(reactor, taps, this.#progress) };
    this.#state = { at: "recovering", side };
    await this.#recover(receiver);
    await receiver.open(signal);
    this.#state = { at: "open", side };
    this.#guard.keepLooking(reactor);
    reactor.every(TICK_MS, () => this.#tick(receiver));
    return side;
  }

  #receiverWith(taps: SecondaryTapDevices): ReceiverHost {
    const { replace, disks, maxTransactionBytes, control, fence } = this.#settings;
    const receiver = new ReceiverHost(this.#reactor, {
      ...this.#settings,
      taps: taps.secondaryTaps,
      store: this.#home.store,
      look: (hello) => lookForSameImages(hello, disks),
      owner: new ReplicaOwner(replace, new CopyOwner(disks)),
      listen: this.#listen,
      guard: this.#guard,
      maxTransactionBytes: maxTransactionBytes ??
        Math.floor(freeMemoryBytes({ swap: false }) / 2),
      software: SOFTWARE,
      controlled: control !== undefined,
      fenced: isFence(fence),
      gate: this.#gate,
    });
    this.#gate.replica = receiver.replica;
    return receiver;
  }

  /** Goes on with the replica of an earlier recv, if the standby loads it. */
  async #recover({ replica, owner }: ReceiverHost): Promise<void> {
    this.#home.recover(replica, owner);
    if (replica.committed === 0) return;
    // Before anybody connects, so that a standby that does not fit is an error at the start.
    this.#standby?.image(this.#home.dir!.files);
    await this.#reactor.during(this.#gate.check(replica), this.#signal);
    this.#gate.settle(true);
  }

  #tick(receiver: ReceiverHost): void {
    this.#rate.update(receiver.counters.committed);
    if (this.#state.at !== "open") return;
    if (goesToStdout(this.#settings) && receiver.state !== "activating" && isUnread(1)) {
      this.#reactor.fail(
        new TransportError("stdout", "write", "the process that was to take the VM has gone", {
          party: "successor",
          hint: "see the messages of the QEMU behind the pipe; start it again, with -incoming fd:0",
        }),
      );
    }
    if (this.#progress.isShown) this.#progress.set(summarizeStatus(this.#ownStatus(receiver)));
  }

  /** @returns What has the VM; `undefined` if nothing has, and the replica waits for a next try. */
  async #activate(
    side: Side,
    cause: TakeoverCause,
  ): Promise<{ readonly consumer: StreamConsumer | undefined } | undefined> {
    let consumer: StreamConsumer | undefined;
    try {
      consumer = await this.#takeOver(side, cause);
    } catch (error) {
      await this.#notTakenOver(side, cause, error);
      return undefined;
    }
    this.#state = { at: "active", side, consumer };
    side.receiver.activated();
    this.#home.isGiven();
    if (this.#failovers.resolve()) await this.#letAnswersOut();
    return { consumer };
  }

  async #takeOver(
    { receiver, taps }: Side,
    cause: TakeoverCause,
  ): Promise<StreamConsumer | undefined> {
    const { replica, decidedAt } = receiver;
    const takeover = this.#takeover = new TakeoverClock(cause, replica.committed, decidedAt);
    const consumer = await takeOver(
      {
        settings: this.#settings,
        replica,
        home: this.#home,
        taps,
        standby: this.#standby,
        reactor: this.#reactor,
        progress: this.#progress,
      },
      takeover,
      this.#signal,
    );
    log.info("activated transaction {transaction}, {phases}", {
      transaction: takeover.transaction,
      phases: formatTakeover(takeover.status),
    });
    watchFirstPacket(takeover, taps, this.#reactor);
    return consumer;
  }

  /** Carries out what {@link afterFailedTakeover} decides. @throws the error if that is to end. */
  async #notTakenOver(
    { receiver, taps, ...rest }: Side,
    cause: TakeoverCause,
    error: unknown,
  ): Promise<void> {
    const failure = takeoverFailure(error);
    const isTold = this.#standby?.giveUp() ?? false;
    const { control, fence } = this.#settings;
    const step = afterFailedTakeover({
      failure,
      mayHaveRun: isTold || (this.#takeover?.isGiven ?? false),
      isCommand: !goesToStdout(this.#settings),
      mayBeAskedAgain: control !== undefined,
      mayComeBack: this.#listen.kind === "tcp" || this.#listen.kind === "unix",
      isPrimaryOut: cause === "handover" || isFence(fence) && this.#takeover!.isFenced,
      isInterrupted: this.#signal.aborted,
    });
    const wasAsked = this.#failovers.reject(error);
    if (step === "spent") this.#state = { at: "spent", side: { receiver, taps, ...rest } };
    else this.#home.takeBack();
    if (step === "end" || step === "spent") {
      // The wait below throws if this process is told to end.
      if (step === "end") tellWithoutSecondTry(error, this.#home.dir?.path);
      else if (failure !== "ran") tellSpent(error);
      if (wasAsked) await this.#letAnswersOut();
      throw error;
    }
    taps.deactivate();
    const { message } = error as Error;
    const isNews = step === "wait" || this.#whyNot !== message;
    if (isNews) tellKept(step, message, receiver.replica.committed, control !== undefined);
    this.#whyNot = step === "again" ? message : undefined;
    if (step === "wait") return receiver.resume();
    await this.#reactor.sleep(AGAIN_MS, this.#signal);
  }

  async #letAnswersOut(): Promise<void> {
    await this.#reactor.sleep(ANSWER_MS, this.#signal);
  }

  #status(): EndStatus | EarlyEndStatus {
    const state = this.#state;
    if (state.at === "starting" || state.at === "recovering") {
      return { role: "receiver", state: this.state, syncs: 0 };
    }
    const { survivor, receiver } = state.side;
    return survivor.status ?? this.#ownStatus(receiver);
  }

  #ownStatus(receiver: ReceiverHost): ReceiverStatus {
    return {
      ...receiverStatus(receiver, this.state, this.#rate),
      ram: this.#home.dir?.status ?? null,
      deviceChange: this.#gate.change,
      standby: this.#standby?.status ?? null,
      takeover: this.#takeover?.status ?? null,
    };
  }

  /** @returns Resolves when the guest's state has been handed to QEMU. */
  async #failover(stale: boolean): Promise<void> {
    const { receiver } = this.#side;
    if (this.#state.at === "active") {
      throw new TransportError("recv", "read", "this end is active already", { party: "user" });
    }
    receiver.failover(stale);
    await this.#failovers.wait();
  }

  /** @returns Resolves when the protection has ended. */
  async #protect(request: ProtectRequest<unknown>, gone: AbortSignal): Promise<void> {
    const { survivor } = this.#side;
    if (this.#state.at === "active") return await survivor.protect(request, gone);
    const why = "this end has no VM to protect: it has not taken over";
    throw new TransportError("recv", "read", why, { party: "user", hint: "see kemari status" });
  }

  #attach(request: AttachRequest, passed: number[]): Promise<AttachPlace | undefined> {
    const entrance = () => this.#side.receiver.entrance;
    return letInBySsh(request, passed, this.#listen.text, this.#guard, entrance);
  }

  async #close(): Promise<void> {
    const state = this.#state;
    if (state.at === "open") await state.side.receiver.stop();
    if (state.at === "active") state.consumer?.kill();
    await this.#standby?.close(state.at === "active");
    if (state.at !== "starting") {
      state.side.survivor.close();
      state.side.taps.close();
      state.side.receiver.close();
    }
    this.#control?.close();
    this.#reactor.close();
    // A replica that was not checked yet is left for the next recv.
    if (state.at === "starting") return this.#home.leave();
    this.#home.close({
      isGiven: state.at === "active" || state.at === "spent",
      committed: state.side.receiver.replica.committed,
      isAsked: this.#signal.aborted,
    });
    await state.side.receiver.owner.close();
  }
}
