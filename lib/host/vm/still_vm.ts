/**
 * Keeps a VM under tcg still while QEMU reads all of its RAM.
 *
 * tcg notes the next write to a page by a flag in its TLB, which belongs to a dirty bit. The vCPU
 * looks at the bit, and changes the flag after that (QEMU accel/tcg/cputlb.c, tlb_set_page_full()
 * and notdirty_write()); where a migration takes the bits in between, the page has neither. What the
 * guest writes to it then is not seen, and the secondary keeps the page as it was. Measured with
 * QEMU 11.1 by itself: one page in some 10⁶ looks at the bits, in a guest that goes through its RAM.
 * Of some 400 VMs that were booting when their protection began, two did not survive a takeover; the
 * one whose RAM was kept lacked a part of one page, for this reason to all appearances. KVM's log
 * has no such gap, and checkpoints take the bits while the VM stands still.
 *
 * What is read of a VM that we have stopped is a paused one's: see `asRunning`.
 */
import { getLogger } from "@logtape/logtape";
import { queryStatus, stopVm } from "../../qmp/migration.ts";
import type { MigrationSupport } from "../../qmp/migration_support.ts";
import { libc } from "../system/libc.ts";
import type { QmpClient } from "./qmp_client.ts";

const log = getLogger(["kemari", "protect"]);

/** In the folder of a protection while its VM stands still because of it. */
const MARK = "standing-still";
/** Stopping waits for what the guest's disks have under way. */
const STOP_MS = 600_000;

/**
 * Starts migrations, of a VM that is stopped before where it must be. It runs again when COLO begins
 * or a snapshot is over. If it does not come so far, `releaseVm` lets it go on: in this process or,
 * by the mark, in the guardian.
 */
export class StillVm {
  readonly #qmp: QmpClient;
  readonly #mark: string;
  /** Whether the VM must stand still to be read. */
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

  /** Whether the VM stands still because of us. */
  get isHeld(): boolean {
    return this.#stoppedAt !== undefined;
  }

  /** Whether a migration was begun, and not given up: whatever else is under way is not ours. */
  get hasBegun(): boolean {
    return this.#start !== undefined;
  }

  /**
   * Stops the VM if need be, and starts a migration.
   *
   * @param begin Starts it, unless nobody waits for it any more; what it rejects with then is lost.
   * @returns The migration's descriptor, the caller's to close.
   */
  async start(begin: (givenUp: AbortSignal) => Promise<number>): Promise<number> {
    const givenUp = new AbortController();
    const task = this.#stopAnd(begin, givenUp.signal);
    this.#start = { givenUp, task };
    return await task;
  }

  /** Nobody waits for {@link start} any more. @returns When nothing of it is under way. */
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
      // It went with the protection's folder.
    }
    if (!this.#told) log.info("tcg: the VM stood still for {forMs} ms, to be read", { forMs });
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
    // Whoever has stopped it already is not to be overruled by us.
    if (running !== true) return;
    Deno.writeTextFileSync(this.#mark, "");
    this.#stoppedAt = performance.now();
    await this.#qmp.run(stopVm(), { timeoutMs: STOP_MS });
  }
}

/** Whether a protection that was killed, whose folder that is, has left its VM standing still. */
export async function wasStandingStill(folder: string): Promise<boolean> {
  return await Deno.stat(`${folder}/${MARK}`).then(() => true, () => false);
}
