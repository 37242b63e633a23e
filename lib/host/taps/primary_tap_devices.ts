import type { HeldPaths } from "../../qmp/outside_output.ts";
import { getLogger } from "@logtape/logtape";
import { EventLatency } from "../../replica/events/event_latency.ts";
import { LatencyWindow } from "../../replica/latency_window.ts";
import type { PrimaryTaps } from "../../replica/primary/primary.ts";
import { encodeTapEvent, encodeTapInput } from "../../replica/events/tap_events.ts";
import { type DiskTapAddress, imageUseOf } from "../disk/disk_tap_address.ts";
import { ImageFile } from "../image/image_file.ts";
import { refuseTwice } from "../image/lock_image.ts";
import type { MarkedDisk } from "../image/image_marks.ts";
import { InputHold } from "../net/input_hold.ts";
import { NbdServer } from "../disk/nbd_server.ts";
import { NetTap } from "../net/net_tap.ts";
import type { NetTapEvents } from "../net/net_tap_events.ts";
import { HELD_LIMITS, PrimaryDisk } from "../disk/primary_disk.ts";
import type { Reactor } from "../system/reactor.ts";
import type { SecondaryTapDevices } from "./secondary_tap_devices.ts";
import { type DiskQuestions, ResyncDriver } from "../disk/resync_driver.ts";
import type { NetTapAddress } from "../net/net_tap_address.ts";
import type { TapSettings } from "./tap_settings.ts";
import type { HeldClass, RecentHolds, TapStatus } from "../../control/tap_status.ts";

const log = getLogger(["kemari", "tap"]);

/** How long the end of a session waits for images to take what the guest was told is written. */
const FINISH_MS = 1500;

/**
 * The primary's taps: all NICs and disks of a VM, driven by the transactions of one link after
 * another. They outlive links, since QEMU stays connected to them.
 *
 * ```text
 * passing ──begin() a link──► recording ──first full state committed──► holding
 *    ▲                            │                                        │
 *    └─────────────────── passThrough(): secondary lost ◄──────────────────┘
 * ```
 */
export class PrimaryTapDevices implements PrimaryTaps {
  readonly #nets: NetTap[] = [];
  readonly #disks: PrimaryDisk[] = [];
  readonly #left = new Map<NetTap, number>();
  readonly #diskHold = new LatencyWindow();
  readonly #diskSockets: string[] = [];
  readonly #resync: ResyncDriver;
  readonly #inputHold: InputHold;
  readonly #latency = { net: new EventLatency(), disk: new EventLatency() };
  readonly #reactor: Reactor;
  #settings: TapSettings;
  #events: Uint8Array[][] = [];
  #recording = false;
  #holding = false;
  #released = 0;
  #reported = 0;
  /** Transactions may begin again at 1 with a session; with this added, epochs count on. */
  #epochBase = 0;
  #lastEpoch = 0;
  /** When the open epoch had its first write, and the same for closed epochs by transaction. */
  #firstWriteAt = 0;
  #writeTimes: { readonly transaction: number; readonly at: number }[] = [];

  /** So much waits that the secondary must be given up. */
  onOverflow: (disk: string, heldBytes: number) => void = () => {};
  /** So much waits that a commit is needed, whatever `--sync-on` says. */
  onFull: () => void = () => {};
  /** Output has begun to wait for a commit. */
  onHeld: (cause: HeldClass) => void = () => {};
  /** QEMU is about to stop the VM for a checkpoint. */
  onCheckpoint: () => void = () => {};
  /** A synchronization has closed the open epoch. */
  onEpochClosed: () => void = () => {};
  /** Frames for the guest in this transaction: INPUT payloads in pieces, never changed. */
  onInputs: (transaction: number, inputs: readonly Uint8Array[][]) => void = () => {};
  /** QEMU has taken all frames for the guest, for which {@link holdInputs} had to wait. */
  onInputsTaken: () => void = () => {};
  /** All output held for this transaction and those before has left. */
  onReleased: (transaction: number) => void = () => {};

  private constructor(reactor: Reactor, settings: TapSettings) {
    this.#reactor = reactor;
    this.#resync = new ResyncDriver(reactor, () => {
      if (this.#holding) this.onFull();
    });
    this.#inputHold = new InputHold(reactor, this.#nets, () => this.onInputsTaken());
    this.#settings = settings;
  }

  /**
   * @throws {TransportError} if an image, a socket or a TAP cannot be opened; nothing is left open.
   */
  static async open(
    settings: TapSettings,
    reactor: Reactor,
    signal: AbortSignal,
  ): Promise<PrimaryTapDevices> {
    const taps = new PrimaryTapDevices(reactor, settings);
    try {
      refuseTwice(settings.disks);
      for (const disk of settings.disks) await taps.#openDisk(disk, signal);
      for (const net of settings.nets) await taps.#openNet(net, signal);
      return taps;
    } catch (error) {
      taps.close();
      throw error;
    }
  }

  /** Takes over the taps of a secondary, to own them: the VM runs here now. */
  static adopt(
    settings: TapSettings,
    { disks, nets }: ReturnType<SecondaryTapDevices["surrender"]>,
    reactor: Reactor,
  ): PrimaryTapDevices {
    const taps = new PrimaryTapDevices(reactor, settings);
    for (const { address, gate, server } of disks) {
      const disk = taps.#addDisk(address, gate.image);
      gate.become(disk.backend);
      disk.serve(server);
    }
    for (const net of nets) {
      net.follow(taps.#netEvents(() => net, net.name));
      taps.#nets.push(net);
    }
    return taps;
  }

  /** Sets what the next session does with the disks. @returns itself. */
  configure(settings: TapSettings): this {
    this.#settings = settings;
    return this;
  }

  get isEmpty(): boolean {
    return this.#nets.length + this.#disks.length === 0;
  }
  get images(): readonly MarkedDisk[] {
    return this.#disks.map(({ marked }) => marked);
  }
  /** Whether a QEMU uses any of the taps. */
  get isUsed(): boolean {
    return this.#disks.some(({ isUsed }) => isUsed) ||
      this.#nets.some((net) => net.counters.guestConnected);
  }
  /** Whether released writes are not in an image yet. */
  get isWriting(): boolean {
    return this.#disks.some(({ isWriting }) => isWriting);
  }
  /** Whether every replicated disk has been sent whole. */
  get copied(): boolean {
    return this.#disks.every((disk) => this.#isCopied(disk));
  }

  /** The paths by which QEMU's NICs and disks go through kemari. */
  get heldPaths(): HeldPaths {
    return {
      nets: this.#nets.map(({ address }) => address.in.path),
      connected: this.#nets.filter((net) => net.counters.guestConnected).length,
      disks: this.#diskSockets,
    };
  }

  get status(): TapStatus {
    return {
      nets: Object.fromEntries(this.#nets.map((net) => [net.name, net.counters])),
      disks: this.#disks.map((disk) => disk.status(this.#isCopied(disk))),
      diskHold: this.#diskHold.summary(),
      latency: { net: this.#latency.net.summary(), disk: this.#latency.disk.summary() },
    };
  }

  /** How long output was held lately. */
  recentHolds(): RecentHolds {
    return {
      netHold: Object.fromEntries(this.#nets.map((net) => [net.name, net.recentHolds()])),
      diskHold: this.#diskHold.recent(),
    };
  }

  /**
   * A session begins: announces the disks, and brings the secondary's copies in step if need be.
   *
   * @param questions How to ask it for digests; undefined: replicated disks are sent whole.
   */
  begin(lastTransaction: number, questions?: DiskQuestions): void {
    this.giveInputs();
    this.#recording = true;
    this.#released = this.#reported = lastTransaction;
    this.#epochBase = this.#lastEpoch - lastTransaction;
    for (const net of this.#nets) this.#left.set(net, lastTransaction);
    for (const disk of this.#disks) disk.begin(lastTransaction);
    const replicated = this.#disks.filter(({ tap }) => tap.mode === "replicated");
    this.#resync.begin(replicated, this.#settings.diskSync, questions);
  }

  /** Takes the next part of the secondary's answer to the oldest query. @throws {WireError} */
  diskDigests(payload: Uint8Array, last: boolean): void {
    this.#resync.receive(payload, last);
  }

  checkpointRequested(): void {
    this.triggered();
    this.onCheckpoint();
  }

  /** A synchronization has been asked for. */
  triggered(): void {
    const now = performance.now();
    for (const latency of Object.values(this.#latency)) latency.triggered(now);
  }

  holdInputs(): boolean {
    return this.#inputHold.hold();
  }

  giveInputs(): void {
    this.#inputHold.give();
  }

  /** QEMU is about to stop the VM, and waits for all requests to its disks. */
  vmStops(): void {
    for (const disk of this.#disks) disk.stopping();
  }

  /** The VM runs. */
  vmRuns(): void {
    for (const disk of this.#disks) disk.stopped();
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
    for (const disk of this.#disks) {
      disk.tap.closeEpoch(transaction);
      // All requests have been answered; later ones belong to the next epoch.
      disk.stopped();
    }
    const now = performance.now();
    for (const latency of Object.values(this.#latency)) latency.closed(transaction, now);
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
    // The first full state is complete: from here on output has to be held.
    this.#holding = true;
    for (const net of this.#nets) net.hold();
    for (const { tap } of this.#disks) tap.hold();
  }

  release(transaction: number): void {
    this.#released = transaction;
    const now = performance.now();
    for (const latency of Object.values(this.#latency)) latency.committed(transaction, now);
    for (const disk of this.#disks) disk.release(transaction);
    while (this.#writeTimes.length > 0 && this.#writeTimes[0].transaction <= transaction) {
      this.#diskHold.add(now - this.#writeTimes.shift()!.at);
    }
    for (const net of this.#nets) net.release(transaction + this.#epochBase);
    this.#report();
  }

  /** The secondary is lost and the VM goes on: everything held leaves, in order. */
  passThrough(): void {
    this.#recording = false;
    this.#holding = false;
    this.giveInputs();
    this.#resync.stop();
    this.#events = [];
    this.#writeTimes = [];
    this.#firstWriteAt = 0;
    for (const latency of Object.values(this.#latency)) latency.reset();
    for (const disk of this.#disks) disk.passThrough();
    for (const net of this.#nets) net.passThrough();
  }

  close(): void {
    this.#resync.stop();
    for (const net of this.#nets) net.close();
    const until = performance.now() + FINISH_MS;
    for (const disk of this.#disks) disk.close(until);
  }

  /** The VM is the secondary's by now: writes that shared images lack must not be made here. */
  giveUp(): void {
    for (const disk of this.#disks) disk.giveUp();
  }

  get isReleasing(): boolean {
    return this.#disks.some(({ isReleasing }) => isReleasing);
  }

  /** Whether a disk needs no (more) copying; with `--disk-sync none` the copies are equal. */
  #isCopied({ tap, resync }: PrimaryDisk): boolean {
    return tap.mode === "shared" || this.#settings.diskSync === "none" || resync.done;
  }

  /** The last transaction whose writes all images have. */
  get #diskLeft(): number {
    return this.#disks.reduce((least, { left }) => Math.min(least, left), this.#released);
  }

  #report(): void {
    let left = this.#diskLeft;
    for (const net of this.#nets) {
      // Not of stuck disks, for which the secondary would have to keep everything.
      if (!net.out.isStuck) left = Math.min(left, this.#left.get(net) ?? 0);
    }
    if (left <= this.#reported) return;
    this.#reported = left;
    this.onReleased(left);
  }

  async #openDisk(address: DiskTapAddress, signal: AbortSignal): Promise<void> {
    const image = ImageFile.open(address.path, this.#reactor, imageUseOf(address));
    image.waitShortly();
    const disk = this.#addDisk(address, image);
    disk.serve(
      await NbdServer.listen(
        {
          address: address.socket,
          exports: [{ name: address.name, backend: disk.backend }],
          onFailure: (name, error) =>
            log.error("disk {name}: {reason}", { name, reason: error.message }),
        },
        this.#reactor,
        signal,
      ),
    );
  }

  /** If a tap cannot be opened, the caller closes the others. */
  #addDisk(address: DiskTapAddress, image: ImageFile): PrimaryDisk {
    const disk = new PrimaryDisk(address, image, this.#reactor);
    this.#diskSockets.push(address.socket.path);
    const { tap } = disk;
    tap.onRecorded = () => {
      const now = performance.now();
      if (this.#firstWriteAt === 0) this.#firstWriteAt = now;
      if (this.#holding) this.#latency.disk.held(now);
      if (tap.heldBytes > HELD_LIMITS.giveUp) this.onOverflow(tap.name, tap.heldBytes);
      else if (tap.heldBytes > HELD_LIMITS.sync) this.onFull();
      else if (this.#holding) this.onHeld("disk");
    };
    disk.onReleased = () => {
      this.#latency.disk.released(this.#diskLeft, performance.now());
      if (this.#recording) this.#report();
    };
    this.#disks.push(disk);
    return disk;
  }

  async #openNet(address: NetTapAddress, signal: AbortSignal): Promise<void> {
    const events = this.#netEvents(() => net, address.name);
    const net: NetTap = await NetTap.open(address, this.#reactor, { events }, signal);
    this.#nets.push(net);
  }

  #netEvents(net: () => NetTap, name: string): NetTapEvents {
    return {
      held: () => {
        this.#latency.net.held(performance.now());
        this.onHeld("net");
      },
      full: () => this.onFull(),
      inputs: (frames) => {
        const open = this.#lastEpoch - this.#epochBase + 1;
        this.onInputs(open, frames.map((frame) => encodeTapInput({ tap: name, frame })));
      },
      released: (epoch) => {
        this.#left.set(net(), epoch - this.#epochBase);
        const left = this.#nets.map((each) => this.#left.get(each) ?? 0);
        this.#latency.net.released(Math.min(...left), performance.now());
        if (this.#recording) this.#report();
      },
      fault: (error) => log.error("net {name}: {reason}", { name, reason: error.message }),
      restored: () => log.info("net {name}: OUT works again", { name }),
    };
  }
}
