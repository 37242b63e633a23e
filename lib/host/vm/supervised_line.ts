import { TransportError } from "../../errors.ts";
import type { QmpClient } from "./qmp_client.ts";
import type { Reactor } from "../system/reactor.ts";
import { VmEnded, VmWatch } from "./vm_watch.ts";

/**
 * QEMU's monitor, and what it tells of the VM: the VM's end, and the monitor's own, end whatever the
 * reactor runs. Not while a session with the secondary is being ended, which has to be done whether
 * QEMU lives or not: its stream may be seen to end before its monitor.
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

  /** Whatever else has failed in the same moment belongs to what is being ended, too. */
  ignoreEnd(): void {
    this.#matters = false;
    this.#reactor.forgetFailure();
  }

  /** It matters again, also if it has ended since. */
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
