import { getLogger } from "@logtape/logtape";
import { judgeFate } from "../decisions/vm_fate.ts";
import { TransportError } from "../errors.ts";
import { triggerCheckpoint } from "../qmp/migration.ts";
import { CheckpointRequests } from "./protect/checkpoint_requests.ts";
import type { TapSet } from "./taps/tap_set.ts";
import type { SyncOn } from "./taps/tap_status.ts";
import type { QmpClient } from "./vm/qmp_client.ts";
import type { Reactor } from "./system/reactor.ts";
import type { SenderLink } from "./link/sender_link.ts";
import { fateInWords } from "./vm/vm_end_words.ts";
import { VmWatch } from "./vm/vm_watch.ts";

const log = getLogger(["kemari", "send"]);

/** What {@link SentVm} needs to know of `kemari send`'s settings. */
export interface SentVmSettings {
  readonly syncOn: SyncOn;
  readonly syncMinIntervalMs: number;
  /** What QEMU's own timer is set to whenever a synchronization is asked for. */
  readonly syncIntervalMs: number;
}

/**
 * The VM whose stream `kemari send` is given, by its monitor: whether it runs, what its checkpoints
 * are asked for with, and what has become of it.
 *
 * A guest that suspends itself to RAM is as one that is paused: QEMU gets no leave to stop its VM until
 * it wakes, since behind a checkpoint QEMU 10.0 and 11.1 abort, and 7.2 wakes the guest.
 */
export class SentVm {
  readonly #qmp: QmpClient;
  readonly #link: SenderLink;
  readonly #watch: VmWatch;
  readonly #reactor: Reactor;
  readonly #requests: CheckpointRequests;
  #delayMs: number | undefined;

  /** Listens from now on. */
  constructor(
    qmp: QmpClient,
    link: SenderLink,
    taps: TapSet,
    settings: SentVmSettings,
    reactor: Reactor,
  ) {
    this.#qmp = qmp;
    this.#link = link;
    this.#reactor = reactor;
    const watch = this.#watch = new VmWatch(qmp);
    this.#requests = new CheckpointRequests({
      ...{ reactor, watch, taps, settings, peer: "the secondary" },
      ask: () => this.#ask(settings.syncIntervalMs),
    });
    this.#requests.begin(link);
    watch.follow({
      asleep: () => link.primary.dialogue.vmStopped(),
      awake: () => link.vmResumed(),
    });
  }

  /** Whether the VM stands still, and not for a checkpoint: it is not to run because of us. */
  get isPaused(): boolean {
    return this.#link.primary.dialogue.isVmPaused || this.#watch.standsStill !== undefined;
  }

  /** The operator's time between two checkpoints, where asking for one has changed it. */
  get changedDelayMs(): number | undefined {
    return this.#delayMs;
  }

  /** No more checkpoints are asked for. */
  rest(): void {
    this.#requests.rest();
  }

  /**
   * Tells the secondary of a VM that was shut down, or is here though its stream has ended.
   *
   * @param error What has ended the session.
   * @returns `ended` if the VM was shut down and the secondary knows it; `here` if the VM is here, and
   *   was said to be; undefined where nothing speaks against a loss.
   */
  async part(error: unknown): Promise<"ended" | "here" | undefined> {
    if (!(error instanceof TransportError) || error.party !== "qemu") return undefined;
    const fate = judgeFate({
      ...await this.#watch.evidence(this.#reactor),
      waitsForUs: true,
    });
    switch (fate.kind) {
      case "dead":
      case "stranded":
        return undefined;
      case "ended": {
        const heard = await this.#link.leave("vm-ended", fateInWords(fate)).catch(() => false);
        if (!heard) return undefined;
        log.info("the VM has ended: {reason}; the secondary knows, and starts nothing", {
          reason: fate.reason,
        });
        return "ended";
      }
      default:
        await this.#link.leave("goes-on", fateInWords(fate)).catch(() => {});
        return "here";
    }
  }

  async #ask(intervalMs: number): Promise<void> {
    if (this.#delayMs === undefined) {
      const parameters = await this.#qmp.execute("query-migrate-parameters");
      const delayMs = (parameters as Record<string, unknown>)["x-checkpoint-delay"];
      if (typeof delayMs === "number") this.#delayMs = delayMs;
    }
    await this.#qmp.run(triggerCheckpoint(intervalMs));
  }
}
