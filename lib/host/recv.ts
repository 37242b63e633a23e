import { getLogger } from "@logtape/logtape";
import { TransportError, UsageError } from "../errors.ts";
import {
  fence,
  isDiskFull,
  type StreamConsumer,
  writeToCommand,
  writeToStdout,
} from "./activation.ts";
import { parseAddress } from "./address.ts";
import { isUnread, wasClosed } from "./channel.ts";
import { ControlServer } from "./control.ts";
import { formatBytes, type ReceiverStatus, receiverStatus, statusLine } from "./end_status.ts";
import { RateMeter } from "./rate_meter.ts";
import { ReplicaHome } from "./replica_home.ts";
import { Reactor } from "./reactor.ts";
import type { DiskTapAddress } from "./disk_options.ts";
import { type ReplaySettings, ReplicaTapSet } from "./replica_tap_set.ts";
import { ReceiverEnd, type Verdict } from "./receiver_end.ts";
import type { ProgressLine } from "./send.ts";
import type { LinkTiming } from "./sender_link.ts";
import { SOFTWARE } from "./software.ts";
import { Survivor } from "./survivor.ts";
import type { NetTapAddress } from "./tap_options.ts";

const log = getLogger(["kemari", "recv"]);

export interface RecvSettings extends LinkTiming {
  readonly listen: string;
  readonly onLoss: "wait" | "activate" | "exit";
  readonly fence?: string;
  readonly fenceTimeoutMs: number;
  readonly exec?: string;
  /** Folder for the RAM's files; in memory without. */
  readonly ramDir?: string;
  /** Bytes of pages one transaction may stage; half of the free memory if undefined. */
  readonly maxTransactionBytes?: number;
  readonly control?: string;
  /** The primary's taps, by the same names, to be offered to the QEMU that goes on. */
  readonly nets: readonly NetTapAddress[];
  readonly disks: readonly DiskTapAddress[];
  readonly replay: ReplaySettings;
}

/** Endpoints whose failure an operator can mend before another `kemari failover`. */
const MENDABLE = /^(--fence|disk )/;

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
  if (listen.kind === "stdio" && settings.exec === undefined) {
    throw new UsageError("with stdio: stdout belongs to the sender, not to the activated stream", {
      hint: 'give --exec "qemu-system-x86_64 … -incoming fd:0"',
    });
  }
  if (settings.exec === undefined && wasClosed(1)) {
    throw new UsageError("stdout is closed: the activated stream would be lost", {
      hint: 'pipe it into "qemu-system-x86_64 … -incoming fd:0", or into a file, or give --exec',
    });
  }
  const home = ReplicaHome.open({
    ...settings,
    hasSharedDisks: settings.disks.some(({ mode }) => mode === "shared"),
  });
  const reactor = new Reactor();
  const taps = await ReplicaTapSet.open(settings.nets, settings.disks, reactor, signal)
    .catch((error) => {
      reactor.close();
      home.leave();
      throw error;
    });
  const end = new ReceiverEnd(reactor, {
    ...settings,
    taps: taps.replicaTaps,
    store: home.store,
    listen,
    maxTransactionBytes: settings.maxTransactionBytes ?? Math.floor(freeMemoryBytes() / 2),
    software: SOFTWARE,
    controlled: settings.control !== undefined,
    fenced: settings.fence !== undefined && settings.fence !== "none",
  });
  const rate = new RateMeter();
  let active: StreamConsumer | undefined;
  let isActive = false;
  const state = (): ReceiverStatus["state"] => isActive ? "active" : end.state;
  const survivor = new Survivor(reactor, taps, progress);
  const ownStatus = () => receiverStatus(end, state(), rate);
  const status = () => survivor.status ?? ownStatus();
  let control: ControlServer | undefined;
  // Whoever asked for failover learns whether the guest's state has been handed to QEMU.
  let asked: { resolve(): void; reject(error: unknown): void }[] = [];
  const failover = () => {
    if (isActive) {
      return Promise.reject(new TransportError("recv", "read", "this end is active already"));
    }
    return new Promise<void>((resolve, reject) => {
      end.failover();
      asked.push({ resolve, reject });
    });
  };
  const protect = (request: Record<string, unknown>, gone: AbortSignal) => {
    if (isActive) return survivor.protect(request, gone);
    return Promise.reject(
      new TransportError("recv", "read", "this end has no VM to protect: it has not taken over", {
        hint: "see kemari status",
      }),
    );
  };
  let given = false;
  try {
    home.recover(end.replica);
    await end.open(signal);
    if (settings.control !== undefined) {
      const handlers = { status, failover, protect };
      control = await ControlServer.open(settings.control, handlers, reactor, signal);
    }
    reactor.every(250, () => {
      rate.update(end.counters.committed);
      if (settings.exec === undefined && end.state !== "activating" && isUnread(1)) {
        reactor.fail(
          new TransportError("stdout", "write", "whoever was to take the VM has gone", {
            hint: "see what the QEMU behind the pipe said; start it again, with -incoming fd:0",
          }),
        );
      }
      if (progress.isShown && !isActive) progress.set(statusLine(ownStatus()));
    });
    for (;;) {
      const verdict = await end.receive(signal);
      try {
        active = await activate(verdict);
        given = true;
      } catch (error) {
        for (const { reject } of asked) reject(error);
        asked = [];
        if (!mayTryAgain(error)) throw withoutSecondTry(error);
        log.error("not activated: {reason}; keeping transaction {transaction}", {
          reason: (error as Error).message,
          transaction: end.replica.committed,
        });
        home.takeBack();
        end.resume();
        continue;
      }
      end.activated();
      for (const { resolve } of asked) resolve();
      // The answer gets out before the loop ends.
      if (asked.length > 0) await settle(reactor, signal);
      isActive = true;
      return await survivor.live(active, signal);
    }
  } finally {
    active?.kill();
    survivor.close();
    taps.close();
    end.close();
    control?.close();
    reactor.close();
    home.close({ given, committed: end.replica.committed > 0, asked: signal.aborted });
  }

  async function activate(verdict: Verdict): Promise<StreamConsumer | undefined> {
    const begun = performance.now();
    if (verdict !== "handover" && settings.fence !== undefined && settings.fence !== "none") {
      await reactor.during(
        fence(settings.fence, settings.fenceTimeoutMs, signal, (line) => {
          log.info("fence: {line}", { line });
        }),
        signal,
      );
    }
    const fenced = performance.now();
    taps.activate(settings.replay);
    home.give();
    const onProgress = (bytes: number) => {
      if (progress.isShown) progress.set(`activating, ${formatBytes(bytes)} to QEMU`);
    };
    let consumer: StreamConsumer | undefined;
    if (settings.exec === undefined) {
      await writeToStdout(end.replica, reactor, signal, onProgress);
    } else {
      const writing = writeToCommand(end.replica, settings.exec, signal, onProgress);
      consumer = await reactor.during(writing, signal);
    }
    log.info(
      "activated transaction {transaction} after {cause}: fenced in {fence} ms, " +
        "state passed on in {load} ms",
      {
        transaction: end.replica.committed,
        cause: verdict,
        fence: Math.round(fenced - begun),
        load: Math.round(performance.now() - fenced),
      },
    );
    return consumer;
  }

  function mayTryAgain(error: unknown): boolean {
    if (signal.aborted || settings.control === undefined) return false;
    return isDiskFull(error) || error instanceof TransportError && MENDABLE.test(error.endpoint) ||
      settings.exec !== undefined && error instanceof TransportError;
  }
}

/** Says what it means that this process ends now, with the only copy of the replica. */
function withoutSecondTry(error: unknown): unknown {
  if (!isDiskFull(error)) return error;
  const { endpoint, phase, message } = error as TransportError;
  return new TransportError(endpoint, phase, message.replace(`${endpoint}: `, ""), {
    hint: "the replica ends with this process: continue the VM on the primary; with --control, " +
      "recv keeps it for another kemari failover",
    cause: (error as TransportError).cause,
  });
}

async function settle(reactor: Reactor, signal: AbortSignal): Promise<void> {
  let done = false;
  reactor.after(50, () => done = true);
  await reactor.run(() => done, signal);
}

function freeMemoryBytes(): number {
  return Deno.systemMemoryInfo().available;
}
