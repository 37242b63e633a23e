/**
 * Keeps a VM under tcg still while QEMU reads all of its RAM.
 *
 * tcg notes the next write to a page by a flag in its TLB, which belongs to a dirty bit. The vCPU
 * looks at the bit, and changes the flag after that (QEMU accel/tcg/cputlb.c, tlb_set_page_full()
 * and notdirty_write()); where a migration takes the bits in between, the page has neither. What the
 * guest writes to it then is not seen, and the secondary keeps the page as it was. Measured with
 * QEMU 11.1 by itself: one page in some 10⁶ looks at the bits, in a guest that goes through its RAM;
 * of VMs that were booting when their protection began, about one in 100 did not survive a
 * takeover. KVM's log has no such gap, and checkpoints take the bits while the VM stands still.
 *
 * What is read of a VM that we have stopped is a paused one's: see `asRunning`.
 */
import { getLogger } from "@logtape/logtape";
import { stopVm } from "../qmp/migration.ts";
import type { MigrationSupport } from "../qmp/migration_support.ts";
import type { QmpClient } from "./qmp_client.ts";

const log = getLogger(["kemari", "protect"]);

/** In the folder of a protection while its VM stands still because of it. */
const MARK = "standing-still";

/**
 * A VM that we stop before a migration, and that the migration's end lets run again. If it never
 * comes so far, `releaseVm` has to: in this process or, by the mark, in the guardian.
 */
export class StillVm {
  readonly #qmp: QmpClient;
  readonly #mark: string;
  readonly #isNeeded: boolean;
  #stoppedAt: number | undefined;
  #told = false;

  /** @param folder The protection's temporary folder, which its guardian knows. */
  constructor(qmp: QmpClient, support: Pick<MigrationSupport, "accelerator">, folder: string) {
    this.#qmp = qmp;
    this.#mark = `${folder}/${MARK}`;
    this.#isNeeded = support.accelerator === "tcg";
  }

  /** Whether the VM stands still because of us. */
  get isHeld(): boolean {
    return this.#stoppedAt !== undefined;
  }

  /** Stops the VM, where that is needed. Comes before each migration. */
  async stop(): Promise<void> {
    if (!this.#isNeeded) return;
    this.#stoppedAt = performance.now();
    await Deno.writeTextFile(this.#mark, "");
    await this.#qmp.run(stopVm());
  }

  /** The VM runs. */
  resumed(): void {
    if (this.#stoppedAt === undefined) return;
    const forMs = Math.round(performance.now() - this.#stoppedAt);
    this.#stoppedAt = undefined;
    // It may have gone before, with the protection.
    Deno.remove(this.#mark).catch(() => {});
    if (!this.#told) log.info("tcg: the VM stood still for {forMs} ms, to be read", { forMs });
    this.#told = true;
  }
}

/** Whether a protection that was killed, whose folder that is, has left its VM standing still. */
export async function wasStandingStill(folder: string): Promise<boolean> {
  return await Deno.stat(`${folder}/${MARK}`).then(() => true, () => false);
}
