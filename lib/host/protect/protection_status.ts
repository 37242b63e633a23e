import type { SenderLink } from "../link/sender_link.ts";
import { readDurations, senderStatus, vmStatus } from "../status/sender_status.ts";
import { summarizeStatus } from "../status/summarize_status.ts";
import { RateMeter } from "../system/rate_meter.ts";
import { DeviceWatch } from "../vm/device_watch.ts";
import type { EarlyStatus, SenderStatus } from "../../control/sender_status.ts";
import type { ProtectableVm } from "./protectable_vm.ts";
import type { ProtectParts } from "./protect_context.ts";

/** How often to measure the rate of synchronizations, and to redraw the line on the screen. */
const METER_MS = 250;

/** The status of a running protection: on its board, and on the line on the screen. */
export class ProtectionStatus {
  readonly #vm: ProtectableVm;
  readonly #parts: ProtectParts;
  readonly #state: () => SenderStatus["state"] | undefined;
  readonly #rate = new RateMeter();
  readonly #devices = new DeviceWatch();
  #stopMeter: () => void = () => {};
  /** The present session, or the last one. */
  #last: SenderLink | undefined;

  /** @param state Returns the state to show instead of the session's own, if any. */
  constructor(
    vm: ProtectableVm,
    parts: ProtectParts,
    state: () => SenderStatus["state"] | undefined,
  ) {
    this.#vm = vm;
    this.#parts = parts;
    this.#state = state;
  }

  begin(): void {
    const { board, taps, reactor, progress } = this.#parts;
    board.show(() => this.#read(), () => readDurations(this.#last, taps.recentHolds()));
    this.#vm.outside.begin(reactor);
    this.#stopMeter = reactor.every(METER_MS, () => {
      this.lookAtDevices();
      this.#rate.update(this.#last?.primary.counters.committed ?? 0);
      if (progress.isShown && this.#last !== undefined) {
        progress.set(summarizeStatus(this.#ofSession(this.#last)));
      }
    });
  }

  /** Shows this session from now on. */
  show(link: SenderLink): void {
    this.#last = link;
  }

  /** Logs which devices have come or gone between the last two full states. */
  lookAtDevices(): void {
    this.#devices.look(this.#last?.primary.firstPass.sections);
  }

  end(): void {
    this.#stopMeter();
    this.#vm.outside.end();
  }

  #read(): SenderStatus | EarlyStatus {
    if (this.#last !== undefined) return this.#ofSession(this.#last);
    return { role: "sender", state: "connecting", peer: this.#parts.target.text, syncs: 0 };
  }

  #ofSession(link: SenderLink): SenderStatus {
    const { target, settings, taps } = this.#parts;
    const { mode, identity, outside } = this.#vm;
    const kind = mode === "colo" ? "colo" : "snapshots";
    return {
      ...senderStatus(link, this.#state(), kind, target.text, this.#rate, settings.compress),
      vm: vmStatus(identity),
      outside: outside.found,
      deviceChange: this.#devices.change,
      ...(taps.isEmpty ? {} : { taps: taps.status }),
    };
  }
}
