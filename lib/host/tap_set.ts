import { getLogger } from "@logtape/logtape";
import { type DiskMode, encodeTapEvent } from "../replica/tap_events.ts";
import { DiskTap } from "../replica/disk_tap.ts";
import { DiskResync, type ResyncPlan, type ResyncProgress } from "../replica/disk_resync.ts";
import { LatencyWindow } from "../replica/latency.ts";
import { createPageDigest } from "../replica/page_digest.ts";
import type { PrimaryTaps } from "../replica/primary.ts";
import type { DiskTapAddress } from "./disk_options.ts";
import { formatBytes, type SenderDurations } from "./end_status.ts";
import { ImageFile } from "./image_file.ts";
import { NbdServer } from "./nbd_server.ts";
import { NetTap } from "./net_tap.ts";
import type { NetTapCounters, NetTapEvents } from "./net_tap_events.ts";
import type { Reactor } from "./reactor.ts";
import type { ReplicaTapSet } from "./replica_tap_set.ts";
import type { NetTapAddress } from "./tap_options.ts";
import { storeOf, TappedDisk } from "./tapped_disk.ts";

const log = getLogger(["kemari", "tap"]);

/** What the command line asks to tap. */
export interface TapSettings {
  readonly nets: readonly NetTapAddress[];
  readonly disks: readonly DiskTapAddress[];
  /** Whether a replicated disk is copied to the secondary first, or is known to be equal. */
  readonly diskSync: "full" | "none";
}

/** Why output is held. */
export type HeldClass = "net" | "disk";

/** One disk in `kemari status`. */
export interface DiskStatus {
  readonly name: string;
  readonly mode: DiskMode;
  readonly sizeBytes: number;
  /** Share of the secondary's copy that is in step, 0 to 1. */
  readonly copied: number;
  /** How it got there in this session, in bytes of the disk. */
  readonly resync: ResyncProgress;
  readonly heldBytes: number;
  readonly unreleasedWrites: number;
}

export interface TapStatus {
  readonly nets: Readonly<Record<string, NetTapCounters>>;
  readonly disks: readonly DiskStatus[];
  /** First write of an epoch to its release, ms. */
  readonly diskHold: ReturnType<LatencyWindow["summary"]>;
}

/** Which held output asks for a synchronization. */
export type SyncOn = readonly HeldClass[];

/**
 * What asks for a synchronization unless told otherwise: packets; and writes too where an image is
 * shared, since those wait in memory.
 */
export function defaultSyncOn(disks: readonly Pick<DiskTapAddress, "mode">[]): SyncOn {
  const shared = disks.some(({ mode }) => mode === "shared");
  return shared ? ["net", "disk"] : ["net"];
}

/** Recorded writes beyond which a synchronization is asked for, whatever `--sync-on` says. */
const MAX_HELD_BYTES = 32 * 2 ** 20;
const COPY_PERIOD_MS = 5;
/** How much of it goes into reading and comparing; the guest's requests come in between. */
const COPY_BUDGET_MS = 2;
const COPY_BUDGET_BYTES = 2 ** 20;
const COPY_AHEAD_BYTES = 16 * 2 ** 20;

/** How a secondary is asked what it has of a disk. */
export interface DiskQuestions {
  /** Halves of the digests' seed, of this session alone. */
  readonly seedLow: number;
  readonly seedHigh: number;
  /** Whether one more question may be asked. */
  mayAsk(): boolean;
  /** Sends a DISK_QUERY payload. */
  ask(query: Uint8Array): void;
}

interface PrimaryDisk {
  readonly tap: DiskTap;
  readonly image: ImageFile;
  readonly resync: DiskResync;
  readonly server: NbdServer;
}

/**
 * The primary's taps: all NICs and disks of one VM, driven by the transactions of one link after
 * another. They outlive links, since QEMU stays connected to them.
 *
 * ```text
 * passing ──begin() a link──► recording ──first full state committed──► holding
 *    ▲                            │                                        │
 *    └─────────────────── passThrough(): secondary lost ◄──────────────────┘
 * ```
 */
export class TapSet implements PrimaryTaps {
  readonly #nets: NetTap[] = [];
  readonly #disks: PrimaryDisk[] = [];
  readonly #left = new Map<NetTap, number>();
  readonly #diskHold = new LatencyWindow();
  readonly #reactor: Reactor;
  #settings: TapSettings;
  #events: Uint8Array[][] = [];
  #recording = false;
  #holding = false;
  #released = 0;
  #reported = 0;
  /** Epochs of the taps count on over sessions, whose transactions may begin again at 1. */
  #epochBase = 0;
  #lastEpoch = 0;
  /** First write of the open epoch, and of closed ones by transaction. */
  #firstWriteAt = 0;
  #writeTimes: { readonly transaction: number; readonly at: number }[] = [];
  #cancelCopy: () => void = () => {};
  #questions: DiskQuestions | undefined;
  /** Whose questions wait for their answers, oldest first. */
  #answering: DiskResync[] = [];

  /** So much waits for a commit that one is needed, whatever asks for it otherwise. */
  onFull: () => void = () => {};
  /** Something waits for a commit. */
  onHeld: (cause: HeldClass) => void = () => {};
  /** QEMU is about to stop the VM for a checkpoint. */
  onCheckpoint: () => void = () => {};
  /** A synchronization has closed the open epoch. */
  onEpochClosed: () => void = () => {};
  /** All output held for this transaction, and those before, is out. */
  onReleased: (transaction: number) => void = () => {};

  private constructor(reactor: Reactor, settings: TapSettings) {
    this.#reactor = reactor;
    this.#settings = settings;
  }

  /** @throws {TransportError} if an image, a socket or a TAP cannot be opened; nothing is left open. */
  static async open(
    settings: TapSettings,
    reactor: Reactor,
    signal: AbortSignal,
  ): Promise<TapSet> {
    const taps = new TapSet(reactor, settings);
    try {
      for (const disk of settings.disks) await taps.#openDisk(disk, signal);
      for (const net of settings.nets) await taps.#openNet(net, signal);
      return taps;
    } catch (error) {
      taps.close();
      throw error;
    }
  }

  /**
   * Takes over taps that a VM uses: those of a secondary on which it runs now. They are this set's
   * to close.
   */
  static adopt(
    settings: TapSettings,
    { disks, nets }: ReturnType<ReplicaTapSet["surrender"]>,
    reactor: Reactor,
  ): TapSet {
    const taps = new TapSet(reactor, settings);
    for (const { address, gate, server } of disks) {
      const tap = taps.#diskTap(address, gate.image);
      gate.become(new TappedDisk(address.path, tap, gate.image));
      taps.#disks.push({ tap, image: gate.image, resync: resyncOf(tap, gate.image), server });
    }
    for (const net of nets) {
      net.follow(taps.#netEvents(() => net, net.name));
      taps.#nets.push(net);
    }
    return taps;
  }

  /** What the next session is to do with the disks. @returns itself. */
  configure(settings: TapSettings): this {
    this.#settings = settings;
    return this;
  }

  get isEmpty(): boolean {
    return this.#nets.length + this.#disks.length === 0;
  }
  /** Whether a QEMU uses any of the taps. */
  get isUsed(): boolean {
    return this.#disks.some(({ server }) => server.connections > 0) ||
      this.#nets.some((net) => net.counters.guestConnected);
  }
  /** Whether every replicated disk has been sent whole. */
  get copied(): boolean {
    return this.#disks.every((disk) => this.#isCopied(disk));
  }

  get status(): TapStatus {
    return {
      nets: Object.fromEntries(this.#nets.map((net) => [net.name, net.counters])),
      disks: this.#disks.map((disk) => ({
        name: disk.tap.name,
        mode: disk.tap.mode,
        sizeBytes: disk.image.sizeBytes,
        copied: this.#isCopied(disk)
          ? 1
          : disk.resync.progress.doneBytes / Math.max(1, disk.image.sizeBytes),
        resync: disk.resync.progress,
        heldBytes: disk.tap.heldBytes,
        unreleasedWrites: disk.tap.unreleasedWrites,
      })),
      diskHold: this.#diskHold.summary(),
    };
  }

  /** How long output was held lately, see {@link SenderDurations}. */
  recentHolds(): Pick<SenderDurations, "netHold" | "diskHold"> {
    return {
      netHold: Object.fromEntries(this.#nets.map((net) => [net.name, net.recentHolds()])),
      diskHold: this.#diskHold.recent(),
    };
  }

  /**
   * A secondary is there: disks are announced to it, and brought in step if need be.
   *
   * @param questions How to ask it for digests; without, a replicated disk is sent whole.
   */
  begin(lastTransaction: number, questions?: DiskQuestions): void {
    this.#recording = true;
    this.#released = this.#reported = lastTransaction;
    this.#epochBase = this.#lastEpoch - lastTransaction;
    for (const net of this.#nets) this.#left.set(net, lastTransaction);
    for (const { tap, resync } of this.#disks) {
      tap.start();
      if (tap.mode === "replicated") resync.reset();
    }
    this.#cancelCopy();
    this.#questions = questions;
    this.#answering = [];
    if (this.#settings.diskSync === "none") return this.#beginResync({ kind: "none" });
    if (questions === undefined) this.#beginResync({ kind: "copy" });
    else {
      const { seedLow, seedHigh } = questions;
      createPageDigest(seedLow, seedHigh).then((digest) => {
        // Another session may have begun meanwhile.
        if (this.#questions !== questions) return;
        this.#beginResync({ kind: "compare", seedLow, seedHigh, digest });
      }).catch((error) => this.#reactor.fail(error));
      this.#reactor.wake();
    }
    this.#cancelCopy = this.#reactor.every(COPY_PERIOD_MS, () => this.#resync());
  }

  #beginResync(plan: ResyncPlan): void {
    for (const { tap, resync } of this.#disks) if (tap.mode === "replicated") resync.begin(plan);
  }

  /** Takes the next part of the secondary's answer to the oldest question. @throws {WireError} */
  diskDigests(payload: Uint8Array, last: boolean): void {
    this.#answering[0].receive(payload, last);
    if (last) this.#answering.shift();
  }

  checkpointRequested(): void {
    this.onCheckpoint();
  }

  drain(): void {
    for (const net of this.#nets) net.drain();
  }

  takeEvents(): Uint8Array[][] {
    for (const { tap } of this.#disks) {
      for (const event of tap.takeEvents()) this.#events.push(encodeTapEvent(event));
    }
    const events = this.#events;
    this.#events = [];
    return events;
  }

  closeEpoch(transaction: number): void {
    this.#lastEpoch = transaction + this.#epochBase;
    for (const { tap } of this.#disks) tap.closeEpoch(transaction);
    if (this.#firstWriteAt > 0) {
      this.#writeTimes.push({ transaction, at: this.#firstWriteAt });
      this.#firstWriteAt = 0;
    }
    for (const net of this.#nets) {
      for (const frame of net.closeEpoch(this.#lastEpoch).frames) {
        this.#events.push(encodeTapEvent({ kind: "packet", tap: net.name, frame }));
      }
    }
    this.onEpochClosed();
    if (this.#holding) return;
    // The first full state is complete: from here on there is something to fall behind of.
    this.#holding = true;
    for (const net of this.#nets) net.hold();
    for (const { tap } of this.#disks) tap.hold();
  }

  release(transaction: number): void {
    this.#released = transaction;
    for (const { tap } of this.#disks) {
      try {
        tap.release(transaction);
      } catch (error) {
        // The writes stay in the overlay and are tried again with the next transaction.
        log.error("disk {name}: {reason}; writes are kept in memory", {
          name: tap.name,
          reason: (error as Error).message,
        });
        return;
      }
    }
    const now = performance.now();
    while (this.#writeTimes.length > 0 && this.#writeTimes[0].transaction <= transaction) {
      this.#diskHold.add(now - this.#writeTimes.shift()!.at);
    }
    for (const net of this.#nets) net.release(transaction + this.#epochBase);
    this.#report();
  }

  /** The secondary is lost and the VM goes on: everything held gets out, in order. */
  passThrough(): void {
    this.#recording = false;
    this.#holding = false;
    this.#cancelCopy();
    this.#questions = undefined;
    this.#events = [];
    this.#writeTimes = [];
    this.#firstWriteAt = 0;
    for (const { tap } of this.#disks) {
      try {
        tap.passThrough();
      } catch (error) {
        log.error("disk {name}: {reason}; writes are kept in memory", {
          name: tap.name,
          reason: (error as Error).message,
        });
      }
    }
    for (const net of this.#nets) net.passThrough();
  }

  close(): void {
    this.#cancelCopy();
    for (const net of this.#nets) net.close();
    for (const { server, image } of this.#disks) {
      server.close();
      image.close();
    }
  }

  /** With `--disk-sync none` the copies are said to be equal; a shared image has none. */
  #isCopied({ tap, resync }: PrimaryDisk): boolean {
    return tap.mode === "shared" || this.#settings.diskSync === "none" || resync.done;
  }

  #report(): void {
    let left = this.#released;
    for (const net of this.#nets) left = Math.min(left, this.#left.get(net) ?? 0);
    if (left <= this.#reported) return;
    this.#reported = left;
    this.onReleased(left);
  }

  /** Goes on with bringing the secondary's copies in step, for a while. */
  #resync(): void {
    let behind = false;
    const until = performance.now() + COPY_BUDGET_MS;
    for (const { tap, resync } of this.#disks) {
      if (tap.mode === "shared" || resync.done) continue;
      this.#ask(resync);
      while (tap.heldBytes < COPY_AHEAD_BYTES && performance.now() < until) {
        if (resync.step(COPY_BUDGET_BYTES) === 0) break;
      }
      // More waits for a transaction to go with than one should bring.
      if (tap.heldBytes >= COPY_AHEAD_BYTES && this.#holding) this.onFull();
      if (resync.done) this.#tellResync(tap.name, resync.progress);
      else behind = true;
    }
    if (!behind) this.#cancelCopy();
  }

  #ask(resync: DiskResync): void {
    while (this.#questions?.mayAsk()) {
      const query = resync.takeQuery();
      if (query === undefined) return;
      this.#answering.push(resync);
      this.#questions.ask(query);
    }
  }

  #tellResync(name: string, { doneBytes, sentBytes }: ResyncProgress): void {
    const share = doneBytes === 0 ? 0 : 100 * sentBytes / doneBytes;
    log.info(
      this.#questions === undefined
        ? "disk {name}: all of it, {done}, is sent: {sent} of data"
        : "disk {name}: {done} compared with the secondary's copy, {sent} sent ({share} %)",
      {
        name,
        done: formatBytes(doneBytes),
        sent: formatBytes(sentBytes),
        share: share.toFixed(1),
      },
    );
  }

  async #openDisk(address: DiskTapAddress, signal: AbortSignal): Promise<void> {
    const image = ImageFile.open(address.path);
    const tap = this.#diskTap(address, image);
    let server: NbdServer;
    try {
      server = await NbdServer.listen(
        {
          address: address.socket,
          exports: [{ name: address.name, backend: new TappedDisk(address.path, tap, image) }],
          onFailure: (name, error) =>
            log.error("disk {name}: {reason}", { name, reason: error.message }),
        },
        this.#reactor,
        signal,
      );
    } catch (error) {
      image.close();
      throw error;
    }
    this.#disks.push({ tap, image, resync: resyncOf(tap, image), server });
  }

  #diskTap(address: DiskTapAddress, image: ImageFile): DiskTap {
    const tap = new DiskTap(address.name, address.mode, storeOf(image));
    tap.onRecorded = () => {
      if (this.#firstWriteAt === 0) this.#firstWriteAt = performance.now();
      if (tap.heldBytes > MAX_HELD_BYTES) this.onFull();
      else if (this.#holding) this.onHeld("disk");
    };
    return tap;
  }

  async #openNet(address: NetTapAddress, signal: AbortSignal): Promise<void> {
    const events = this.#netEvents(() => net, address.name);
    const net: NetTap = await NetTap.open(address, this.#reactor, { events }, signal);
    this.#nets.push(net);
  }

  #netEvents(net: () => NetTap, name: string): NetTapEvents {
    return {
      held: () => this.onHeld("net"),
      full: () => this.onFull(),
      released: (epoch) => {
        this.#left.set(net(), epoch - this.#epochBase);
        if (this.#recording) this.#report();
      },
      fault: (error) => log.error("net {name}: {reason}", { name, reason: error.message }),
      restored: () => log.info("net {name}: OUT is there again", { name }),
    };
  }
}

function resyncOf(tap: DiskTap, image: ImageFile): DiskResync {
  return new DiskResync(tap, storeOf(image));
}
