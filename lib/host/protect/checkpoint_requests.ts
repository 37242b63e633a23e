import { tooSlow } from "../link/lost_secondary.ts";
import type { SenderLink } from "../link/sender_link.ts";
import type { Reactor } from "../system/reactor.ts";
import type { PrimaryTapDevices } from "../taps/primary_tap_devices.ts";
import type { SyncOn } from "../taps/tap_settings.ts";
import type { VmWatch } from "../vm/vm_watch.ts";
import { SyncTrigger } from "./sync_trigger.ts";

/** What {@link CheckpointRequests} works with. */
interface CheckpointRequestParts {
  readonly reactor: Reactor;
  readonly watch: VmWatch;
  readonly taps: PrimaryTapDevices;
  readonly settings: { readonly syncOn: SyncOn; readonly syncMinIntervalMs: number };
  /** The secondary's name, for errors. */
  readonly peer: string;
  /**
   * Asks QEMU for a checkpoint. Absent if checkpoints are not asked for: then the code that runs
   * the loop is woken instead.
   */
  readonly ask?: () => Promise<unknown>;
  /** Prepares the first request. Called again if it has failed. */
  readonly prepare?: () => Promise<unknown>;
}

/** The request for a checkpoint that is under way; only at its end has QEMU been asked. */
interface Asking {
  at: "preparing" | "asked";
}

/**
 * Has QEMU make the checkpoints that held output needs, and tells the session whether the VM runs;
 * for `protect` and `send --qmp` alike.
 *
 * ```text
 * taps hold something ──► SyncTrigger ──► QEMU is asked, unless it was already, or is in a
 * checkpoint STOP, RESUME ──► the taps, whose disks QEMU drains; the dialogue, which gives no leave
 * to stop a VM that stands still; the trigger, which asks for no other until the VM runs
 * ```
 *
 * This outlives sessions, and follows the VM as long as its monitor is connected. Between sessions
 * there are no requests, since QEMU's settings are the operator's.
 */
export class CheckpointRequests {
  readonly #parts: CheckpointRequestParts;
  readonly trigger: SyncTrigger;
  #link: SenderLink | undefined;
  #asking: Asking | undefined;
  #isPrepared: boolean;

  constructor(parts: CheckpointRequestParts) {
    this.#parts = parts;
    const { reactor, watch, taps, settings, peer } = parts;
    this.#isPrepared = parts.prepare === undefined;
    const trigger = this.trigger = new SyncTrigger(reactor, settings.syncMinIntervalMs, () => {
      this.#ask();
    });
    const request = () => void (this.#link !== undefined && trigger.request());
    taps.onHeld = (cause) => void (settings.syncOn.includes(cause) && request());
    taps.onFull = request;
    taps.onCheckpoint = () => trigger.begun();
    taps.onEpochClosed = () => trigger.closed();
    taps.onOverflow = (disk, heldBytes) => {
      if (this.#link !== undefined) reactor.fail(tooSlow(peer, disk, heldBytes));
    };
    watch.follow({
      stopped: () => this.#vmStopped(),
      resumed: () => this.#vmResumed(),
    });
  }

  /** A session begins: held output asks for checkpoints from now on. */
  begin(link: SenderLink): void {
    this.#link = link;
  }

  /** The session has ended. The failure of a request that is under way is ignored. */
  rest(): void {
    this.#link = undefined;
  }

  #ask(): void {
    const { taps, reactor, ask } = this.#parts;
    taps.triggered();
    if (ask === undefined) return reactor.wake();
    if (this.#asking !== undefined || !this.#mayAsk()) return;
    const asking: Asking = this.#asking = { at: "preparing" };
    this.#carryOut(asking, ask).catch((error) => {
      if (this.#link !== undefined) reactor.fail(error);
    }).finally(() => {
      // The VM may run by now, and another request may be under way.
      if (this.#asking === asking) this.#asking = undefined;
    });
  }

  async #carryOut(asking: Asking, ask: () => Promise<unknown>): Promise<void> {
    if (!this.#isPrepared) {
      await this.#parts.prepare!();
      this.#isPrepared = true;
      // QEMU may have begun a checkpoint meanwhile, or the session may have ended.
      if (!this.#mayAsk()) return;
    }
    asking.at = "asked";
    await ask();
  }

  /**
   * Whether to ask QEMU now: a QEMU that is in a checkpoint, or was asked for one already, has been
   * seen to hang when asked.
   */
  #mayAsk(): boolean {
    return this.#link !== undefined && !this.#link.primary.dialogue.inCheckpoint;
  }

  /** The VM is being stopped, for whatever reason, which drains its disks. */
  #vmStopped(): void {
    this.#parts.taps.vmStops();
    this.#link?.primary.dialogue.vmStopped();
  }

  #vmResumed(): void {
    this.#parts.taps.vmRuns();
    this.#link?.vmResumed();
    // QEMU's answer came before that, but its promise settles later.
    if (this.#asking?.at === "asked") this.#asking = undefined;
    this.trigger.ended();
  }
}
