import { getLogger } from "@logtape/logtape";
import { judgeFate } from "../decisions/vm_fate.ts";
import { TransportError } from "../errors.ts";
import type { QmpClient } from "./vm/qmp_client.ts";
import type { Reactor } from "./system/reactor.ts";
import type { SenderLink } from "./link/sender_link.ts";
import { fateInWords } from "./vm/vm_end_words.ts";
import { VmWatch } from "./vm/vm_watch.ts";

const log = getLogger(["kemari", "send"]);

/** What becomes of the VM whose stream `kemari send` is given, as far as QEMU's monitor tells it. */
export class SentVm {
  readonly #watch: VmWatch;
  readonly #reactor: Reactor;

  constructor(qmp: QmpClient, reactor: Reactor) {
    this.#watch = new VmWatch(qmp);
    this.#reactor = reactor;
  }

  /**
   * Tells the secondary of a VM that was shut down, or is here though its stream has ended.
   *
   * @param error What has ended the session.
   * @returns `ended` if the VM was shut down and the secondary knows it; `here` if the VM is here, and
   *   was said to be; undefined where nothing speaks against a loss.
   */
  async part(error: unknown, link: SenderLink): Promise<"ended" | "here" | undefined> {
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
        const heard = await link.leave("vm-ended", fateInWords(fate)).catch(() => false);
        if (!heard) return undefined;
        log.info("the VM has ended: {reason}; the secondary knows, and starts nothing", {
          reason: fate.reason,
        });
        return "ended";
      }
      default:
        await link.leave("goes-on", fateInWords(fate)).catch(() => {});
        return "here";
    }
  }
}
