/**
 * Keeps a VM under tcg stopped while QEMU reads all of its RAM.
 *
 * tcg notices the next write to a page by a flag in its TLB, which goes with a dirty bit. The vCPU
 * looks at the bit, and changes the flag after that (QEMU accel/tcg/cputlb.c, tlb_set_page_full()
 * and notdirty_write()); if a migration takes the bits in between, the page has neither flag nor
 * bit. What the guest writes to that page then is not noticed, and the secondary keeps the page as
 * it was. Measured with QEMU 11.1 by itself: one page was missed in some 10⁶ looks at the bits, in
 * a guest that goes through its RAM. Of some 400 VMs that were booting when their protection began,
 * two did not survive a takeover; the VM whose RAM was kept lacked a part of one page, apparently
 * for this reason. KVM's log has no such gap, and checkpoints take the bits while the VM stands
 * still.
 *
 * The state of a VM that we have stopped is that of a paused VM: see `asRunning`.
 */
import { getLogger } from "@logtape/logtape";
import { queryStatus, stopVm } from "../../qmp/migration.ts";
import type { MigrationSupport } from "../../qmp/migration_support.ts";
import { libc } from "../system/libc.ts";
import type { QmpClient } from "./qmp_client.ts";

const log = getLogger(["kemari", "protect"]);

/** The file in a protection's folder that exists while the protection keeps its VM stopped. */
const MARK = "standing-still";
/** How long `stop` may take: it waits for requests of the guest's disks that are under way. */
const STOP_MS = 600_000;

/**
 * Starts migrations, and stops the VM before where necessary. The VM runs again when COLO begins or
 * a snapshot is over. If the migration does not come so far, `releaseVm` lets the VM go on: in this
 * process or, by the mark, in the guardian.
 */
export class StillVm {
  readonly #qmp: QmpClient;
  readonly #mark: string;
  /** Whether the VM must be stopped while QEMU reads its RAM. */
  readonly isNeeded: boolean;
  #stoppedAt: number | undefined;
  #told = false;
  #start: { readonly givenUp: AbortController; readonly task: Promise<number> } | undefined;

  /** @param folder The protection's temporary folder, which its guardian knows. */
  constructor(qmp: QmpClient, support: Pick<MigrationSupport, "accelerator">, folder: string) {
    this.#qmp = qmp;
    this.#mark = `${folder}/${MARK}`;
    this.isNeeded = support.accelerator === "tcg";
  }

  /** Whether the VM is stopped because of us. */
  get isHeld(): boolean {
    return this.#stoppedAt !== undefined;
  }

  /** Whether a migration was begun here, and not given up: any other migration is not ours. */
  get hasBegun(): boolean {
    return this.#start !== undefined;
  }

  /**
   * Stops the VM if need be, and starts a migration.
   *
   * @param begin Starts the migration, unless nobody waits for it any more; its rejection is then
   *   ignored.
   * @returns The migration's descriptor, the caller's to close.
   */
  async start(begin: (givenUp: AbortSignal) => Promise<number>): Promise<number> {
    const givenUp = new AbortController();
    const task = this.#stopAnd(begin, givenUp.signal);
    this.#start = { givenUp, task };
    return await task;
  }

  /** Gives {@link start} up. Resolves when nothing of it is under way any more. */
  async giveUp(): Promise<void> {
    const start = this.#start;
    this.#start = undefined;
    start?.givenUp.abort();
    await start?.task.catch(() => {});
  }

  /** The VM runs. */
  resumed(): void {
    if (this.#stoppedAt === undefined) return;
    const forMs = Math.round(performance.now() - this.#stoppedAt);
    this.#stoppedAt = undefined;
    try {
      Deno.removeSync(this.#mark);
    } catch {
      // The file was removed with the protection's folder.
    }
    if (!this.#told) {
      log.info("tcg: the VM stood still for {forMs} ms while its RAM was read", { forMs });
    }
    this.#told = true;
  }

  async #stopAnd(
    begin: (givenUp: AbortSignal) => Promise<number>,
    givenUp: AbortSignal,
  ): Promise<number> {
    if (this.isNeeded) await this.#stop();
    givenUp.throwIfAborted();
    const fd = await begin(givenUp);
    if (!givenUp.aborted) return fd;
    libc().close(fd);
    throw givenUp.reason;
  }

  async #stop(): Promise<void> {
    const { running } = await this.#qmp.run(queryStatus()) as { running?: boolean };
    // A VM that an operator has stopped already stays stopped.
    if (running !== true) return;
    Deno.writeTextFileSync(this.#mark, "");
    this.#stoppedAt = performance.now();
    await this.#qmp.run(stopVm(), { timeoutMs: STOP_MS });
  }
}

/** Whether the protection with this folder, which was killed, has left its VM stopped. */
export async function wasStandingStill(folder: string): Promise<boolean> {
  return await Deno.stat(`${folder}/${MARK}`).then(() => true, () => false);
}
