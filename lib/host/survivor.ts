import { getLogger } from "@logtape/logtape";
import { chooseSecurity } from "../decisions/link_security.ts";
import { TransportError, UsageError } from "../errors.ts";
import type { StreamConsumer } from "./takeover/write_replica.ts";
import { parseTarget } from "./link/parse_target.ts";
import {
  decodeViaConfig,
  type ProtectRequest,
  type ViaConfig,
} from "../control/protect_request.ts";
import type { EarlyStatus, SenderStatus } from "../control/sender_status.ts";
import { protectTapped } from "./protect/protect.ts";
import { ProtectBoard } from "./protect/protect_board.ts";
import type { Reactor } from "./system/reactor.ts";
import type { SecondaryTapDevices } from "./taps/secondary_tap_devices.ts";
import type { ProgressLine } from "./system/progress_line.ts";
import { UNUSED_MS } from "./taps/serve_until_unused.ts";
import { SOFTWARE } from "./system/software.ts";
import { PrimaryTapDevices } from "./taps/primary_tap_devices.ts";
import { defaultSyncOn, type SyncOn } from "./taps/tap_settings.ts";
import { LinkGuard } from "./tls/link_guard.ts";

const log = getLogger(["kemari", "recv"]);

interface Asked {
  readonly settings: ViaConfig;
  readonly gone: AbortSignal;
  resolve(): void;
  reject(error: unknown): void;
}

/** The states of a {@link Survivor}. */
type SurvivorState =
  | { readonly at: "serving" }
  | { readonly at: "asked"; readonly asked: Asked }
  | { readonly at: "protecting"; readonly asked: Asked; readonly board: ProtectBoard };

/**
 * `kemari recv` after it has taken over: it serves the VM's taps, and protects the VM again when it
 * is asked to. The taps stay open all the time, since QEMU stays connected to them.
 *
 * ```text
 *            protect()          live() sees it
 * serving ──────────────► asked ────────────────► protecting
 *  │  ▲                                                │
 *  │  └── the secondary is given up, or whoever asked ─┘
 *  │      is gone
 *  └── QEMU's command has ended, or nobody uses the taps any more ──► over
 * ```
 */
export class Survivor {
  readonly #reactor: Reactor;
  readonly #secondaryTaps: SecondaryTapDevices;
  readonly #progress: ProgressLine;
  /** The taps in the role of a primary's, from the first protection on. */
  #taps: PrimaryTapDevices | undefined;
  #syncOn: SyncOn = [];
  #state: SurvivorState = { at: "serving" };

  constructor(reactor: Reactor, taps: SecondaryTapDevices, progress: ProgressLine) {
    this.#reactor = reactor;
    this.#secondaryTaps = taps;
    this.#progress = progress;
  }

  /** The sender's status while the VM is protected. */
  get status(): SenderStatus | EarlyStatus | undefined {
    return this.#state.at === "protecting" ? this.#state.board.status() : undefined;
  }

  /**
   * Protects the VM until `gone` is aborted, or the protection ends by itself.
   *
   * @throws {KemariError} the reason if the protection ends by itself.
   */
  protect(request: ProtectRequest<unknown>, gone: AbortSignal): Promise<void> {
    const { software } = request;
    if (software !== SOFTWARE) {
      throw new UsageError(`this end is ${SOFTWARE}, and was asked by ${software}`, {
        hint: "run the same kemari",
      });
    }
    if (this.#state.at !== "serving") {
      throw new TransportError("recv", "connect", "this VM is being protected already", {
        party: "user",
        hint: "see kemari status",
      });
    }
    const settings = decodeViaConfig(request);
    return new Promise((resolve, reject) => {
      this.#state = { at: "asked", asked: { settings, gone, resolve, reject } };
      this.#reactor.wake();
    });
  }

  /**
   * Serves until the VM does not need this process any more.
   *
   * @param consumer The command that runs the VM; without it, the VM's end is recognized by the use
   *   of the taps.
   * @returns The command's exit code, or 0.
   */
  async live(consumer: StreamConsumer | undefined, signal: AbortSignal): Promise<number> {
    let code: number | undefined;
    consumer?.exitCode.then((ended) => {
      code = ended;
      this.#reactor.wake();
    });
    let unusedSince = performance.now();
    const cancel = this.#reactor.every(UNUSED_MS / 10, () => {
      if ((this.#taps ?? this.#secondaryTaps).isUsed) unusedSince = performance.now();
    });
    const isOver = () =>
      consumer === undefined ? performance.now() - unusedSince >= UNUSED_MS : code !== undefined;
    try {
      if (consumer === undefined && this.#secondaryTaps.isEmpty) return 0;
      if (consumer === undefined) log.info("serving the taps until QEMU disconnects");
      for (;;) {
        await this.#reactor.run(() => isOver() || this.#state.at === "asked", signal);
        if (this.#state.at !== "asked") {
          // This process may have killed the command: then its exit code means nothing.
          signal.throwIfAborted();
          return code ?? 0;
        }
        await this.#protect(this.#state.asked, signal);
        signal.throwIfAborted();
        unusedSince = performance.now();
      }
    } finally {
      cancel();
      if (this.#state.at !== "serving") {
        this.#state.asked.reject(new TransportError("recv", "read", "that end has ended"));
      }
    }
  }

  close(): void {
    this.#taps?.close();
  }

  async #protect(asked: Asked, signal: AbortSignal): Promise<void> {
    const { settings, gone, resolve, reject } = asked;
    const both = AbortSignal.any([signal, gone]);
    try {
      const security = chooseSecurity(settings.security);
      const target = parseTarget({ ...settings, security });
      log.info("asked to protect the VM: towards {target}", { target: target.text });
      const guard = LinkGuard.open(security, "sender", target);
      await guard.admitTarget(target, both);
      const taps = this.#takeTaps(settings);
      const board = new ProtectBoard(target.text);
      this.#state = { at: "protecting", asked, board };
      await protectTapped(
        { ...settings, security, syncOn: settings.syncOn ?? this.#syncOn },
        target,
        guard,
        this.#reactor,
        taps,
        this.#progress,
        both,
        board,
      );
      log.info("the protection has ended");
      resolve();
    } catch (error) {
      if (gone.aborted) {
        log.info(
          "the process that asked for protection is gone: the VM is " +
            "unprotected",
        );
      } else log.error("the protection has ended: {reason}", { reason: (error as Error).message });
      reject(error);
    } finally {
      this.#state = { at: "serving" };
    }
  }

  #takeTaps({ taps: settings }: ViaConfig): PrimaryTapDevices {
    if (this.#taps !== undefined) return this.#taps.configure(settings);
    const given = this.#secondaryTaps.surrender();
    this.#syncOn = defaultSyncOn(given.disks.map(({ address }) => address));
    return this.#taps = PrimaryTapDevices.adopt(settings, given, this.#reactor);
  }
}
