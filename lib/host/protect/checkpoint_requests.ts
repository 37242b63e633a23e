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
  /** QEMU was asked, and has not answered. */
  #isAsking = false;

  constructor(parts: CheckpointRequestParts) {
    this.#parts = parts;
    const { reactor, watch, taps, settings, peer } = parts;
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
    // A QEMU that is in a checkpoint, or was asked for one already, has been seen to hang if it is asked.
    if (this.#link === undefined || this.#isAsking) return;
    if (this.#link.primary.dialogue.inCheckpoint) return;
    this.#isAsking = true;
    ask().catch((error) => {
      if (this.#link !== undefined) reactor.fail(error);
    }).finally(() => this.#isAsking = false);
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
    this.#isAsking = false;
    this.trigger.ended();
  }
}
