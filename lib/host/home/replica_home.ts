/** Where `kemari recv` keeps its replica: in memory, or in files that outlive it. */
import { createHash } from "node:crypto";
import { getLogger } from "@logtape/logtape";
import { type AtRecvEnd, keepsFiles } from "../../decisions/replica_files.ts";
import { describeVm } from "../../decisions/whose_replica.ts";
import { KemariError } from "../../errors.ts";
import type { ReplicaStore } from "../../replica/pages/page_store.ts";
import type { Replica } from "../../replica/secondary/replica.ts";
import type { ReplicaOwner } from "./replica_owner.ts";
import { RamDir } from "../ram_dir/ram_dir.ts";
import type { RamReserve } from "../../control/receiver_status.ts";

const log = getLogger(["kemari", "recv"]);

interface HomeSettings {
  readonly listen: string;
  /** The folder for the RAM's files. */
  readonly ramDir?: string;
  /** Whether to reserve room for all of the RAM. */
  readonly ramReserve: RamReserve;
  /** The command of the standby, which maps the RAM's files. */
  readonly standby?: string;
  /**
   * Whether a disk's writes that the primary may not have let go are only in this process's memory.
   */
  readonly hasSharedDisks: boolean;
}

/** The replica's files, if it has any. */
export class ReplicaHome {
  /** `undefined`: the replica is in memory. */
  readonly dir: RamDir | undefined;
  readonly #isNamed: boolean;
  readonly #hasSharedDisks: boolean;

  private constructor(dir: RamDir | undefined, isNamed: boolean, hasSharedDisks: boolean) {
    this.dir = dir;
    this.#isNamed = isNamed;
    this.#hasSharedDisks = hasSharedDisks;
  }

  /** @throws {TransportError} if the folder cannot be used, or another process uses it. */
  static open(settings: HomeSettings): ReplicaHome {
    const { ramDir, ramReserve, standby, hasSharedDisks } = settings;
    if (ramDir === undefined && standby === undefined) {
      return new ReplicaHome(undefined, false, hasSharedDisks);
    }
    const dir = RamDir.open(ramDir ?? defaultRamDir(settings), ramReserve);
    // On another thread, so that heartbeats go on. If this process ends before, the next one
    // removes the rest.
    dir.removeFolder = (folder) => {
      Deno.remove(folder, { recursive: true }).catch(() => {});
    };
    return new ReplicaHome(dir, ramDir !== undefined, hasSharedDisks);
  }

  get store(): ReplicaStore | undefined {
    return this.dir;
  }

  /** Goes on with what an earlier recv left in the folder, if that is whole. */
  recover(replica: Replica, owner: ReplicaOwner): void {
    const dir = this.dir;
    if (dir === undefined) return;
    dir.whose = () => owner.coming;
    dir.disks = replica.taps.diskNames;
    const found = dir.recover();
    if ("nothing" in found) {
      if (found.nothing !== "there was no replica") {
        log.warn("{folder}: no replica to go on with: {reason}", {
          folder: dir.path,
          reason: found.nothing,
        });
      }
      return;
    }
    try {
      if (this.#hasSharedDisks) {
        throw new SharedDisks("writes to its shared disks were held in the earlier recv's memory");
      }
      replica.adopt(found);
      owner.adopt(found.vm ?? {});
      log.info("{folder}: going on with transaction {transaction} of {machine}, {vm}", {
        folder: dir.path,
        transaction: found.transaction,
        vm: describeVm(owner.kept),
        machine: replica.machine,
      });
    } catch (error) {
      if (!(error instanceof KemariError || error instanceof SharedDisks)) throw error;
      log.warn("{folder}: transaction {transaction} is not used: {reason}", {
        folder: dir.path,
        transaction: found.transaction,
        reason: error.message,
      });
      dir.discard();
    }
  }

  /** A VM is about to get the replica: a later recv must not offer it again. */
  give(): void {
    this.dir?.give();
  }

  /**
   * The VM runs with the replica: the files are not needed any more, and a failure to remove them
   * must not end the VM.
   */
  isGiven(): void {
    try {
      this.dir?.remove(!this.#isNamed);
    } catch (error) {
      log.warn("{folder}: not all of its files could be removed: {reason}", {
        folder: this.dir!.path,
        reason: (error as Error).message,
      });
    }
  }

  /** No VM got the replica after all. */
  takeBack(): void {
    try {
      this.dir?.takeBack();
    } catch (error) {
      // This process has the replica all the same.
      log.error("{folder}: the next recv will not find the replica there: {reason}", {
        folder: this.dir!.path,
        reason: (error as Error).message,
      });
    }
  }

  /** Ends the use of the files; {@link keepsFiles} says whether the next recv finds them. */
  close(end: Omit<AtRecvEnd, "isNamed">): void {
    const dir = this.dir;
    if (dir === undefined) return;
    if (!keepsFiles({ ...end, isNamed: this.#isNamed })) this.isGiven();
    else log.info("{folder}: the replica stays for the next kemari recv", { folder: dir.path });
    dir.close();
  }

  /** Closes the files as they are. */
  leave(): void {
    this.dir?.close();
  }
}

class SharedDisks extends Error {}

/**
 * The default folder: another one for each address and each standby, and the same after a restart.
 */
function defaultRamDir({ listen, standby }: HomeSettings): string {
  const hash = createHash("sha256").update(`${listen}\0${standby}`).digest("hex").slice(0, 12);
  return `/dev/shm/kemari-${hash}`;
}
