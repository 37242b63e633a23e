import type { ControlHandlers } from "../system/control_server.ts";
import { readDurations } from "../status/sender_status.ts";
import type { SenderDurations, SenderStatus } from "../../control/sender_status.ts";
import type { EarlyStatus } from "../../control/sender_status.ts";

/** The present status of a protection, from its first moment on; the control socket reads it. */
export class ProtectBoard {
  readonly #peer: string;
  #status: () => SenderStatus | EarlyStatus;
  #durations: () => SenderDurations = () =>
    readDurations(undefined, { netHold: {}, diskHold: { count: 0, ms: [] } });

  constructor(peer: string) {
    this.#peer = peer;
    this.#status = () => this.#early("starting");
  }

  /** Sets what the protection waits for, before there is a status. */
  waits(state: SenderStatus["state"]): void {
    this.#status = () => this.#early(state);
  }

  /** Sets the source of the status from now on. */
  show(status: () => SenderStatus | EarlyStatus, durations: () => SenderDurations): void {
    this.#status = status;
    this.#durations = durations;
  }

  status(): SenderStatus | EarlyStatus {
    return this.#status();
  }

  get handlers(): ControlHandlers {
    return { status: () => this.#status(), durations: () => this.#durations() };
  }

  #early(state: SenderStatus["state"]): EarlyStatus {
    return { role: "sender", state, peer: this.#peer, syncs: 0 };
  }
}
