import { getLogger } from "@logtape/logtape";
import {
  InterruptedError,
  KemariError,
  type Party,
  QemuError,
  TransportError,
  UsageError,
} from "../errors.ts";
import { isDiskFull, type StreamConsumer } from "./takeover/activation.ts";
import { parseAddress } from "./system/address.ts";
import { isUnread, wasClosed } from "./system/channel.ts";
import { ReplicaGate } from "./takeover/replica_gate.ts";
import { type ControlHandlers, ControlServer } from "./system/control.ts";
import { statusLine } from "./status/status_line.ts";
import { receiverStatus } from "./status/receiver_status.ts";
import type { ProtectRequest } from "../control/protect_request.ts";
import type { RamReserve, ReceiverStatus, TakeoverCause } from "../control/receiver_status.ts";
import { refuseSameImages } from "./image/image_marks.ts";
import { freeMemoryBytes } from "./ram_dir/ram_room.ts";
import { RateMeter } from "./system/rate_meter.ts";
import { CopyOwner } from "./home/copy_owner.ts";
import { ReplicaHome } from "./home/replica_home.ts";
import { ReplicaOwner } from "./home/replica_owner.ts";
import { Reactor } from "./system/reactor.ts";
import type { DiskTapAddress } from "./disk/disk_address.ts";
import { type ReplaySettings, ReplicaTapSet } from "./taps/replica_tap_set.ts";
import { ReceiverEnd } from "./link/receiver_end.ts";
import type { ProgressLine } from "./system/progress_line.ts";
import type { LinkTiming } from "./link/link_options.ts";
import { SOFTWARE } from "./system/software.ts";
import { RanAndEnded, Standby } from "./takeover/standby.ts";
import { checkStandbyCommand } from "./takeover/standby_command.ts";
import { takeOver } from "./takeover/take_over.ts";
import { formatTakeover, Takeover } from "./takeover/takeover_clock.ts";
import { Survivor } from "./survivor.ts";
import type { NetTapAddress } from "./net/net_address.ts";

const log = getLogger(["kemari", "recv"]);

export interface RecvSettings extends LinkTiming {
  readonly listen: string;
  readonly onLoss: "wait" | "activate" | "exit";
  readonly fence?: string;
  readonly fenceTimeoutMs: number;
  readonly exec?: string;
  /** Folder for the RAM's files; in memory without. */
  readonly ramDir?: string;
  /** Whether one other VM may take the place of the one that is kept. */
  readonly replace?: boolean;
  /** Whether room for all of it is reserved there. */
  readonly ramReserve: RamReserve;
  /** A QEMU's command, to be run beside the replica and to take the VM over. */
  readonly standby?: string;
  /** Bytes of pages one transaction may stage; half of the free memory if undefined. */
  readonly maxTransactionBytes?: number;
  readonly control?: string;
  /** The primary's taps, by the same names, to be offered to the QEMU that goes on. */
  readonly nets: readonly NetTapAddress[];
  readonly disks: readonly DiskTapAddress[];
  readonly replay: ReplaySettings;
}

/** How exactly the first packet's time is told, in milliseconds, and for how long it is waited for. */
const FIRST_PACKET_POLL_MS = 2;
const FIRST_PACKET_MS = 30_000;

/** Whose failure an operator can mend before another `kemari failover`. */
const MENDABLE: ReadonlySet<Party> = new Set(["fence", "disk"]);

/**
 * `kemari recv`: transactions in; on activation one complete migration stream on stdout, or into
 * the command's stdin.
 *
 * @returns The command's exit code, or 0.
 * @throws {TransportError} on loss where the settings say so, or when activation is impossible.
 */
export async function recv(
  settings: RecvSettings,
  progress: ProgressLine,
  signal: AbortSignal,
): Promise<number> {
  const listen = parseAddress(settings.listen);
  const toStdout = settings.exec === undefined && settings.standby === undefined;
  if (settings.standby !== undefined) checkStandbyCommand(settings.standby);
  if (listen.kind === "stdio" && toStdout) {
    throw new UsageError("with stdio: stdout belongs to the sender, not to the activated stream", {
      hint: 'give --exec "qemu-system-x86_64 … -incoming fd:0"',
    });
  }
  if (toStdout && wasClosed(1)) {
    throw new UsageError("stdout is closed: the activated stream would be lost", {
      hint: 'pipe it into "qemu-system-x86_64 … -incoming fd:0", or into a file, or give --exec',
    });
  }
  const home = ReplicaHome.open({
    ...settings,
    hasSharedDisks: settings.disks.some(({ mode }) => mode === "shared"),
  });
  const standby = settings.standby === undefined
    ? undefined
    : new Standby(settings.standby, home.dir!.makeSocketFolder());
  if (standby !== undefined) home.dir!.onImage = (files) => standby.image(files);
  const gate = new ReplicaGate(standby);
  const reactor = new Reactor();
  let handlers: ControlHandlers = {
    status: () => ({ role: "receiver", state: "starting", syncs: 0 }),
  };
  let control: ControlServer | undefined;
  const openControl = async () => {
    if (settings.control === undefined) return;
    // It asks for the handlers when it is asked: there are more of them later.
    const current: ControlHandlers = {
      status: () => handlers.status(),
      failover: (stale) => handlers.failover?.(stale) ?? tooEarly(),
      protect: (request, gone) => handlers.protect?.(request, gone) ?? tooEarly(),
    };
    control = await ControlServer.open(settings.control, current, reactor, signal);
  };
  const openTaps = async () => {
    await openControl();
    const { nets, disks, replay } = settings;
    return await ReplicaTapSet.open(nets, disks, reactor, signal, replay.input);
  };
  const taps = await openTaps().catch(async (error) => {
    control?.close();
    reactor.close();
    await standby?.close();
    home.leave();
    throw error;
  });
  const end = new ReceiverEnd(reactor, {
    ...settings,
    taps: taps.replicaTaps,
    store: home.store,
    admit: (hello, offset) => refuseSameImages(hello, offset, settings.disks),
    owner: new ReplicaOwner(settings.replace, new CopyOwner(settings.disks)),
    listen,
    maxTransactionBytes: settings.maxTransactionBytes ??
      Math.floor(freeMemoryBytes({ swap: false }) / 2),
    software: SOFTWARE,
    controlled: settings.control !== undefined,
    fenced: settings.fence !== undefined && settings.fence !== "none",
    gate,
  });
  gate.replica = end.replica;
  const rate = new RateMeter();
  let active: StreamConsumer | undefined;
  let isActive = false;
  const state = (): ReceiverStatus["state"] => isActive ? "active" : end.state;
  const survivor = new Survivor(reactor, taps, progress);
  let takeover: Takeover | undefined;
  const ownStatus = () => ({
    ...receiverStatus(end, state(), rate),
    ram: home.dir?.status ?? null,
    deviceChange: gate.change,
    standby: standby?.status ?? null,
    takeover: takeover?.status ?? null,
  });
  const status = () => survivor.status ?? ownStatus();
  // Whoever asked for failover learns whether the guest's state has been handed to QEMU.
  let asked: { resolve(): void; reject(error: unknown): void }[] = [];
  const failover = (stale: boolean) => {
    if (isActive) {
      return Promise.reject(
        new TransportError("recv", "read", "this end is active already", { party: "user" }),
      );
    }
    return new Promise<void>((resolve, reject) => {
      end.failover(stale);
      asked.push({ resolve, reject });
    });
  };
  const protect = (request: ProtectRequest<unknown>, gone: AbortSignal) => {
    if (isActive) return survivor.protect(request, gone);
    return Promise.reject(
      new TransportError("recv", "read", "this end has no VM to protect: it has not taken over", {
        party: "user",
        hint: "see kemari status",
      }),
    );
  };
  let given = false;
  try {
    home.recover(end.replica, end.owner);
    if (end.replica.committed > 0) {
      // Before anybody connects: what does not fit is told at the start.
      standby?.image(home.dir!.files);
      await reactor.during(gate.check(end.replica), signal);
      gate.settle(true);
    }
    await end.open(signal);
    handlers = { status, failover, protect };
    reactor.every(250, () => {
      rate.update(end.counters.committed);
      if (toStdout && end.state !== "activating" && isUnread(1)) {
        reactor.fail(
          new TransportError("stdout", "write", "whoever was to take the VM has gone", {
            party: "successor",
            hint: "see what the QEMU behind the pipe said; start it again, with -incoming fd:0",
          }),
        );
      }
      if (progress.isShown && !isActive) progress.set(statusLine(ownStatus()));
    });
    for (;;) {
      const verdict = await end.receive(signal);
      if (verdict === "vm-ended") return 0;
      try {
        active = await activate(verdict);
        given = true;
      } catch (error) {
        given = error instanceof RanAndEnded;
        const told = asked;
        asked = [];
        for (const { reject } of told) reject(error);
        if (!given) home.takeBack();
        if (!mayTryAgain(error)) {
          if (told.length > 0) await settle(reactor, signal);
          throw withoutSecondTry(error, home.dir?.path);
        }
        log.error("not activated: {reason}; keeping transaction {transaction}", {
          reason: (error as Error).message,
          transaction: end.replica.committed,
        });
        taps.deactivate();
        end.resume();
        continue;
      }
      end.activated();
      home.isGiven();
      for (const { resolve } of asked) resolve();
      // The answer gets out before the loop ends.
      if (asked.length > 0) await settle(reactor, signal);
      isActive = true;
      return await survivor.live(active, signal);
    }
  } finally {
    active?.kill();
    await standby?.close();
    survivor.close();
    taps.close();
    end.close();
    control?.close();
    reactor.close();
    home.close({ given, committed: end.replica.committed > 0, asked: signal.aborted });
  }

  async function activate(verdict: TakeoverCause): Promise<StreamConsumer | undefined> {
    const transaction = end.replica.committed;
    const current = takeover = new Takeover(verdict, transaction, end.detectedAt);
    const { replica } = end;
    const parts = { settings, replica, home, taps, standby, reactor, progress };
    const consumer = await takeOver(parts, current, signal);
    log.info("activated transaction {transaction}, {phases}", {
      transaction,
      phases: formatTakeover(current.status),
    });
    watchFirstPacket(current);
    return consumer;
  }

  /** A tap does not say when a frame passes, and this is over soon. */
  function watchFirstPacket(current: Takeover): void {
    const before = taps.packetsOut;
    const cancel = reactor.every(FIRST_PACKET_POLL_MS, () => {
      if (taps.packetsOut > before) {
        current.over("firstPacket");
        log.info("first packet {ms} ms after the takeover was decided on", {
          ms: Math.round(current.status.firstPacketMs!),
        });
      } else if (performance.now() - end.detectedAt < FIRST_PACKET_MS) return;
      cancel();
    });
  }

  function mayTryAgain(error: unknown): boolean {
    if (signal.aborted || settings.control === undefined) return false;
    if (error instanceof RanAndEnded) return false;
    if (error instanceof QemuError) return !toStdout;
    if (!(error instanceof TransportError)) return false;
    return isDiskFull(error) || MENDABLE.has(error.party) || !toStdout;
  }
}

/** Says what it means that this process ends now, and what becomes of the replica. */
function withoutSecondTry(error: unknown, folder: string | undefined): unknown {
  if (error instanceof RanAndEnded || !(error instanceof KemariError)) return error;
  if (error instanceof InterruptedError) return error;
  const rest = folder === undefined
    ? "the replica ends with this process: the VM can go on at the primary alone, if it is there " +
      "still; with --control, recv keeps the replica for another kemari failover"
    : `the replica is kept in ${folder}: mend what failed, start recv again with --control, and run ` +
      "kemari failover; or let the VM go on at the primary, if it is there still, but never both";
  log.error("not activated: {rest}", { rest });
  return error;
}

function tooEarly(): Promise<never> {
  return Promise.reject(
    new TransportError("recv", "connect", "this end is still starting", {
      party: "user",
      hint: "ask again in a moment; kemari status tells when it listens",
    }),
  );
}

async function settle(reactor: Reactor, signal: AbortSignal): Promise<void> {
  let done = false;
  reactor.after(50, () => done = true);
  await reactor.run(() => done, signal);
}
