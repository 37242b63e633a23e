import { getLogger } from "@logtape/logtape";
import type { DiskResync, ResyncPlan } from "../../replica/events/disk_resync.ts";
import type { ResyncProgress } from "../../control/tap_status.ts";
import { createPageDigest } from "../../replica/pages/page_digest.ts";
import { formatBytes } from "../../units.ts";
import type { PrimaryDisk } from "./primary_disk.ts";
import type { Reactor } from "../system/reactor.ts";

const log = getLogger(["kemari", "tap"]);

const PERIOD_MS = 5;
/** How much is read and compared at a time; the guest's requests come in between. */
const BUDGET_MS = 2;
const BUDGET_BYTES = 2 ** 20;
/** Bytes of found differences that may wait for a transaction. */
const AHEAD_BYTES = 16 * 2 ** 20;

/** How to ask a secondary what its copy of a disk contains. */
export interface DiskQuestions {
  /** The halves of the digests' seed, which is of this session only. */
  readonly seedLow: number;
  readonly seedHigh: number;
  /** Whether one more query may be sent. */
  mayAsk(): boolean;
  /** Sends a DISK_QUERY payload. */
  ask(query: Uint8Array): void;
}

/** Brings the secondary's copies of replicated disks in step, a little at a time. */
export class ResyncDriver {
  #disks: readonly PrimaryDisk[] = [];
  #questions: DiskQuestions | undefined;
  /** The disks whose queries wait for answers, oldest first. */
  #answering: DiskResync[] = [];
  #cancel: () => void = () => {};
  /** Until when to go on before the guest's requests get their turn. */
  #until = 0;

  /** @param onFull Called when more waits for a transaction than a transaction should bring. */
  constructor(private readonly reactor: Reactor, private readonly onFull: () => void) {}

  /**
   * Begins for a new session.
   *
   * @param disks The replicated disks, reset.
   * @param questions How to ask for digests; undefined: everything is sent.
   */
  begin(
    disks: readonly PrimaryDisk[],
    sync: "full" | "none",
    questions: DiskQuestions | undefined,
  ): void {
    this.stop();
    this.#disks = disks;
    if (disks.length === 0) return;
    if (sync === "none") return this.#plan({ kind: "none" });
    this.#questions = questions;
    if (questions === undefined) this.#plan({ kind: "copy" });
    else {
      const { seedLow, seedHigh } = questions;
      createPageDigest(seedLow, seedHigh).then((digest) => {
        // Another session may have begun meanwhile.
        if (this.#questions !== questions) return;
        this.#plan({ kind: "compare", seedLow, seedHigh, digest });
      }).catch((error) => this.reactor.fail(error));
      // The digest comes from a task of the runtime: a sleeping loop does not see that.
      this.reactor.wake();
    }
    this.#cancel = this.reactor.every(PERIOD_MS, () => this.#step());
  }

  /** Takes the next part of the secondary's answer to the oldest query. @throws {WireError} */
  receive(payload: Uint8Array, last: boolean): void {
    this.#answering[0]?.receive(payload, last);
    if (last) this.#answering.shift();
  }

  /** The session is over. */
  stop(): void {
    this.#cancel();
    this.#questions = undefined;
    this.#answering = [];
  }

  #plan(plan: ResyncPlan): void {
    for (const { resync } of this.#disks) resync.begin(plan);
  }

  #step(): void {
    this.#until = performance.now() + BUDGET_MS;
    for (const disk of this.#disks) this.#stepOf(disk);
    if (this.#disks.every(({ resync }) => resync.done)) this.#cancel();
  }

  /**
   * Goes on with one disk while there is time; if its image has to be waited for, when it answers.
   */
  #stepOf(disk: PrimaryDisk): void {
    const { tap, resync } = disk;
    const questions = this.#questions;
    let isBusy = true;
    for (let isHere = true; isBusy && !resync.done;) {
      this.#ask(resync);
      if (tap.heldBytes >= AHEAD_BYTES) return this.onFull();
      isBusy = false;
      isHere = true;
      resync.step(BUDGET_BYTES, (readBytes) => {
        // Another session may have begun meanwhile.
        if (questions !== this.#questions) return;
        if (resync.done) return this.#tell(tap.name, resync.progress);
        if (readBytes === 0 || performance.now() >= this.#until) return;
        if (isHere) isBusy = true;
        else this.#stepOf(disk);
      });
      isHere = false;
    }
  }

  #ask(resync: DiskResync): void {
    const questions = this.#questions;
    if (questions === undefined) return;
    for (let hasAsked = true; hasAsked && questions.mayAsk();) {
      hasAsked = false;
      resync.takeQuery((query) => {
        if (questions !== this.#questions) return;
        this.#answering.push(resync);
        questions.ask(query);
        hasAsked = true;
      });
    }
  }

  #tell(name: string, { doneBytes, sentBytes }: ResyncProgress): void {
    const share = doneBytes === 0 ? 0 : 100 * sentBytes / doneBytes;
    log.info(
      this.#questions === undefined
        ? "disk {name}: sent whole ({done}): {sent} of data"
        : "disk {name}: {done} compared with the secondary's copy, {sent} sent ({share} %)",
      {
        name,
        done: formatBytes(doneBytes),
        sent: formatBytes(sentBytes),
        share: share.toFixed(1),
      },
    );
  }
}
