import { TransportError } from "../../errors.ts";
import type { QmpClient } from "./qmp_client.ts";
import type { Reactor } from "../system/reactor.ts";
import { VmEnded, VmWatch } from "./vm_watch.ts";

/**
 * Watches QEMU's monitor: the end of the VM, or of the monitor, ends what the reactor runs. Except
 * while a session with the secondary is being ended: that has to be done whether QEMU lives or not,
 * since the end of QEMU's stream may be seen before that of its monitor.
 */
export class SupervisedLine {
  readonly #reactor: Reactor;
  readonly watch: VmWatch;
  #matters = true;
  #ended: TransportError | undefined;

  constructor(readonly qmp: QmpClient, reactor: Reactor) {
    this.#reactor = reactor;
    this.watch = new VmWatch(qmp);
    this.watch.follow({ shutDown: () => this.#tell() });
    qmp.closed.then((cause) => {
      const reason = "the QMP connection ended: QEMU is gone";
      this.#ended = new TransportError("QEMU", "read", reason, { party: "qemu", cause });
      this.#tell();
    });
  }

  /** Other failures of the same moment belong to the session that is being ended, too. */
  ignoreEnd(): void {
    this.#matters = false;
    this.#reactor.forgetFailure();
  }

  /** The monitor counts again, also if it has ended since. */
  heedEnd(): void {
    this.#matters = true;
    this.#tell();
  }

  #tell(): void {
    if (!this.#matters) return;
    const { shutdown } = this.watch;
    if (shutdown !== undefined) this.#reactor.fail(new VmEnded(shutdown));
    else if (this.#ended !== undefined) this.#reactor.fail(this.#ended);
  }
}
