import { tooSlow } from "../link/lost_secondary.ts";
import type { SenderLink } from "../link/sender_link.ts";
import type { Reactor } from "../system/reactor.ts";
import type { PrimaryTapDevices } from "../taps/primary_tap_devices.ts";
import type { SyncOn } from "../taps/tap_settings.ts";
import type { VmWatch } from "../vm/vm_watch.ts";
import { SyncTrigger } from "./sync_trigger.ts";

/** What a VM's checkpoints are asked for with. */
interface CheckpointRequestParts {
  readonly reactor: Reactor;
  readonly watch: VmWatch;
  readonly taps: PrimaryTapDevices;
  readonly settings: { readonly syncOn: SyncOn; readonly syncMinIntervalMs: number };
  /** The secondary, as errors name it. */
  readonly peer: string;
  /** Asks QEMU for a checkpoint. Absent where none is asked for: whoever runs the loop is woken. */
  readonly ask?: () => Promise<unknown>;
  /** What has to be done before the first is asked for. Done again where it failed. */
  readonly prepare?: () => Promise<unknown>;
}

/** A request for a checkpoint that is under way: QEMU has been asked only at its end. */
interface Asking {
  at: "preparing" | "asked";
}

/**
 * Has QEMU make the checkpoints that held output needs, and has the session know whether the VM runs:
 * what `protect` and `send --qmp` do alike.
 *
 * ```text
 * taps hold something ──► SyncTrigger ──► QEMU is asked, unless it was already, or is in a checkpoint
 * STOP, RESUME ──► the taps, whose disks QEMU drains; the dialogue, which gives no leave to stop a
 *                  VM that stands still; the trigger, which asks for no other until the VM runs
 * ```
 *
 * The requests outlive sessions, and follow the VM as long as its monitor is there. Between two sessions
 * nothing is asked for: QEMU's settings are the operator's.
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

  /** A session begins: its secondary is to have what the taps hold. */
  begin(link: SenderLink): void {
    this.#link = link;
  }

  /** There is no session. A request that is under way then may fail unheard. */
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
      // The VM may run by now, and another request be under way.
      if (this.#asking === asking) this.#asking = undefined;
    });
  }

  async #carryOut(asking: Asking, ask: () => Promise<unknown>): Promise<void> {
    if (!this.#isPrepared) {
      await this.#parts.prepare!();
      this.#isPrepared = true;
      // QEMU may have begun a checkpoint meanwhile, or the session have ended.
      if (!this.#mayAsk()) return;
    }
    asking.at = "asked";
    await ask();
  }

  /** A QEMU that is in a checkpoint, or was asked for one already, has been seen to hang if it is asked. */
  #mayAsk(): boolean {
    return this.#link !== undefined && !this.#link.primary.dialogue.inCheckpoint;
  }

  /** Stopping drains the disks, whoever stops the VM. */
  #vmStopped(): void {
    this.#parts.taps.vmStops();
    this.#link?.primary.dialogue.vmStopped();
  }

  #vmResumed(): void {
    this.#parts.taps.vmRuns();
    this.#link?.vmResumed();
    // QEMU's answer came before that, but whoever waits for it hears of it later.
    if (this.#asking?.at === "asked") this.#asking = undefined;
    this.trigger.ended();
  }
}
