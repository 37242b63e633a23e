/** What `kemari recv` checks of a transaction before the commit. */
import { getLogger } from "@logtape/logtape";
import {
  describeChange,
  judgeShape,
  type MachineShape,
} from "../../replica/secondary/machine_shape.ts";
import type { LoadableState } from "../../replica/secondary/compose_replica.ts";
import type { Replica } from "../../replica/secondary/replica.ts";
import { FilePages } from "../ram_dir/file_pages.ts";
import { formatBytes } from "../../units.ts";
import { freeMemoryBytes } from "../ram_dir/ram_room.ts";
import type { Standby } from "./standby.ts";
import type { CommitGate } from "../receive/commit_gate.ts";

const log = getLogger(["kemari", "recv"]);

/** Requires that a transaction has room for its pages, and a shape that the standby has loaded. */
export class ReplicaGate implements CommitGate {
  readonly #standby: Standby | undefined;
  #replica: Replica | undefined;
  #change: string | null = null;

  constructor(standby: Standby | undefined) {
    this.#standby = standby;
  }

  /** The replica that the transactions change; it is made later than the gate. */
  set replica(replica: Replica) {
    this.#replica = replica;
  }

  /** How the VM's devices have changed since this process first saw them; null if they have not. */
  get change(): string | null {
    return this.#change;
  }

  mustHold(state: LoadableState): boolean {
    const { store, shape } = state;
    if (store instanceof FilePages && !store.isReserved) return true;
    if (this.#replica?.committed === 0 && !(store instanceof FilePages)) this.#lookAtMemory(shape);
    const canRehearse = this.#standby?.canRehearse ?? false;
    const verdict = judgeShape(this.#loads(state), shape, canRehearse);
    if (verdict.kind === "commit") return false;
    if (verdict.change !== undefined) {
      this.#change = describeChange(verdict.change);
      if (verdict.kind === "warn") {
        log.warn(
          "the VM has other devices than before: {change}; the QEMU that is to take it over must " +
            "have the same, or it will load nothing",
          { change: this.#change },
        );
      } else {
        log.warn("the VM has other devices than before: {change}; the standby is rehearsed again", {
          change: this.#change,
        });
      }
    }
    return verdict.kind === "rehearse";
  }

  async check(state: LoadableState): Promise<void> {
    const { store } = state;
    if (store instanceof FilePages) await store.reserved();
    const standby = this.#standby;
    if (standby === undefined || !standby.canRehearse) return;
    if (judgeShape(this.#loads(state), state.shape, true).kind === "commit") return;
    await standby.check(state, (store as FilePages).blockFiles);
  }

  settle(isCommitted: boolean): void {
    this.#standby?.settle(isCommitted);
  }

  abandon(): void {
    this.#standby?.abandon();
  }

  /**
   * Warns if memory may run out: none is reserved, and a guest that fills its RAM later makes the
   * replica grow.
   */
  #lookAtMemory({ blocks }: MachineShape): void {
    const ramBytes = blocks.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
    const moreBytes = ramBytes - this.#replica!.memoryBytes;
    const freeBytes = freeMemoryBytes();
    if (moreBytes <= freeBytes) return;
    log.warn(
      "the replica may grow by {more}, and {free} of memory are free, swap included: this " +
        "process may be killed for it, and the VM would go on unprotected",
      { more: formatBytes(moreBytes), free: formatBytes(freeBytes) },
    );
  }

  /** The shape that is known to load into the memory of this state. */
  #loads({ store }: LoadableState) {
    const standby = this.#standby;
    if (standby?.canRehearse) return standby.rehearsed((store as FilePages).blockFiles);
    const replica = this.#replica;
    return replica === undefined || replica.committed === 0 ? undefined : replica.shape;
  }
}
