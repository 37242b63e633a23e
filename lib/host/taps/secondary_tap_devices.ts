import { getLogger } from "@logtape/logtape";
import { SecondaryTaps } from "../../replica/events/secondary_taps.ts";
import type { Unreleased } from "../../replica/events/unreleased_output.ts";
import type { SecondaryDiskConfig } from "../../replica/events/disk_copy.ts";
import type { Done } from "../../replica/events/done.ts";
import { type DiskTapAddress, imageUseOf } from "../disk/disk_tap_address.ts";
import { ImageFile } from "../image/image_file.ts";
import { refuseTwice } from "../image/lock_image.ts";
import { NbdServer } from "../disk/nbd_server.ts";
import { NetTap } from "../net/net_tap.ts";
import type { Reactor } from "../system/reactor.ts";
import type { NetTapAddress } from "../net/net_tap_address.ts";
import { imageStore } from "../disk/image_store.ts";
import { SecondaryDiskBackend } from "../disk/secondary_disk_backend.ts";

const log = getLogger(["kemari", "tap"]);

/** What `--replay` allows to be sent again on activation. */
export interface ReplaySettings {
  readonly net: boolean;
  readonly disk: boolean;
  /** To the guest: the world's frames since the last commit. */
  readonly input: boolean;
}

/**
 * How long the end of `recv` waits for copies to take what is committed, so that a stored replica
 * is whole.
 */
const FINISH_MS = 1500;
/** How often a takeover that waits for storage logs that. */
const SLOW_MS = 5000;

/** A served disk and its server. */
interface SecondaryDisk {
  readonly address: DiskTapAddress;
  readonly gate: SecondaryDiskBackend;
  readonly server: NbdServer;
}

/**
 * The secondary's taps: the same NICs and disks, for the QEMU that takes over. Until then disks can
 * be read but not written, and NICs are silent since the guest stands still.
 */
export class SecondaryTapDevices {
  #disks: SecondaryDisk[] = [];
  #nets: NetTap[] = [];
  readonly secondaryTaps: SecondaryTaps;
  #isActive = false;

  readonly #reactor: Reactor;

  private constructor(
    reactor: Reactor,
    disks: SecondaryDisk[],
    nets: NetTap[],
    keepsInputs: boolean,
  ) {
    this.#disks = disks;
    this.#nets = nets;
    const secondaryDisks = disks.map(({ address, gate }): [string, SecondaryDiskConfig] => {
      const { name, mode } = address;
      return [name, {
        mode,
        sizeBytes: gate.image.sizeBytes,
        copy: mode === "replicated" ? imageStore(gate.image) : undefined,
      }];
    });
    this.secondaryTaps = new SecondaryTaps(
      new Map(secondaryDisks),
      new Set(nets.map(({ name }) => name)),
      keepsInputs && nets.length > 0,
    );
    this.#reactor = reactor;
    this.secondaryTaps.onRefused = (error) =>
      log.error("{reason}; the missing writes are kept in memory", { reason: error.message });
  }

  /**
   * @throws {TransportError} if an image, a socket or a TAP cannot be opened; nothing is left open.
   */
  static async open(
    nets: readonly NetTapAddress[],
    disks: readonly DiskTapAddress[],
    reactor: Reactor,
    signal: AbortSignal,
    keepsInputs = true,
  ): Promise<SecondaryTapDevices> {
    const openDisks: SecondaryDisk[] = [];
    const openNets: NetTap[] = [];
    try {
      refuseTwice(disks);
      for (const address of disks) {
        const gate = new SecondaryDiskBackend(
          ImageFile.open(address.path, reactor, imageUseOf(address)),
        );
        try {
          const server = await NbdServer.listen(
            {
              address: address.socket,
              exports: [{ name: address.name, backend: gate }],
              onFailure: (name, error) =>
                log.error("disk {name}: {reason}", { name, reason: error.message }),
            },
            reactor,
            signal,
          );
          gate.image.onRoom = () => server.resume();
          openDisks.push({ address, gate, server });
        } catch (error) {
          gate.image.close();
          throw error;
        }
      }
      for (const address of nets) {
        const fault = (error: Error) =>
          log.error("net {name}: {reason}", { name: address.name, reason: error.message });
        openNets.push(
          await NetTap.open(
            address,
            reactor,
            { events: { fault }, isDeaf: true },
            signal,
          ),
        );
      }
      return new SecondaryTapDevices(reactor, openDisks, openNets, keepsInputs);
    } catch (error) {
      openNets.forEach((net) => net.close());
      openDisks.forEach(({ gate, server }) => {
        server.close();
        gate.image.close();
      });
      throw error;
    }
  }

  get isEmpty(): boolean {
    return this.#disks.length + this.#nets.length === 0;
  }
  /** Whether a QEMU uses any of the taps. */
  get isUsed(): boolean {
    return this.#disks.some(({ server }) => server.connections > 0) ||
      this.#nets.some((net) => net.counters.guestConnected);
  }

  /** How many frames of the VM have left. */
  get packetsOut(): number {
    return this.#nets.reduce((sum, { counters }) => sum + counters.passedOut, 0);
  }

  /**
   * Finishes what was committed, so that errors come before the primary is fenced. Waits for the
   * disks' storage for any time.
   *
   * @throws {TransportError} if a disk is no whole copy, or refuses a committed write.
   */
  async prepare(signal: AbortSignal): Promise<void> {
    this.secondaryTaps.requireWhole();
    await this.#storage((done) => this.secondaryTaps.finishPending(done), signal);
  }

  /**
   * Activates the taps: finishes what was committed, sends output again that may not have left the
   * primary, and opens the disks for writing.
   *
   * @throws {TransportError} if a disk is no whole copy, or refuses a committed write.
   */
  async activate(replay: ReplaySettings, signal: AbortSignal): Promise<void> {
    if (this.#isActive) return;
    const taps = this.secondaryTaps;
    await this.prepare(signal);
    const frames = new Map<string, Uint8Array[]>();
    const macs = taps.macs;
    const writes: Unreleased["event"][] = [];
    for (const { event } of taps.unreleased) {
      if (event.kind === "packet") {
        frames.set(event.tap, [...frames.get(event.tap) ?? [], event.frame]);
      } else if (replay.disk) writes.push(event);
    }
    await this.#storage((done) => this.#replayWrites(writes, done), signal);
    let packets = 0;
    let given = 0;
    for (const net of this.#nets) {
      const held = frames.get(net.name) ?? [];
      if (replay.net) {
        net.replay(held);
        packets += held.length;
      }
      const inputs = replay.input ? taps.inputs.filter(({ tap }) => tap === net.name) : [];
      given += net.hear(inputs.map(({ frame }) => frame));
      const mac = macs.get(net.name);
      if (mac !== undefined) net.announce(mac);
    }
    for (const { gate, address } of this.#disks) {
      gate.isOpen = true;
      this.#makeGood(address.name, gate.image);
      gate.image.waitShortly();
    }
    this.#isActive = true;
    if (packets + writes.length + given > 0) {
      log.info(
        "replayed {packets} packets and {writes} disk writes, and {given} packets to the guest",
        { packets, writes: writes.length, given },
      );
    }
  }

  /** Makes the writes to shared disks that the primary may not have made, in order. */
  #replayWrites(writes: readonly Unreleased["event"][], done: Done): void {
    let left = writes.length + 1;
    let failure: Error | undefined;
    const one: Done = (error) => {
      failure ??= error;
      if (--left === 0) done(failure);
    };
    for (const event of writes) {
      const { gate } = this.#disks.find(({ address }) => address.name === event.tap)!;
      const store = imageStore(gate.image);
      if (event.kind === "write") store.write(event.offset, event.data, one);
      else if (event.kind === "zero") store.zero(event.offset, event.lengthBytes, one);
      else one();
    }
    one();
  }

  /**
   * Flushes the copies: what the guest was told is durable at the primary has to be durable here,
   * now that the primary is gone. The takeover does not wait for that: if it fails, the guest's
   * next flush fails.
   */
  #makeGood(name: string, image: ImageFile): void {
    image.flush((error) => {
      if (error === undefined) return;
      log.error(
        "disk {name}: writes that the guest takes for durable may not be: {reason}; its next " +
          "flush fails",
        { name, reason: error.message },
      );
    });
  }

  /** Starts an operation on the disks, and runs the loop until it is done. */
  async #storage(act: (done: Done) => void, signal: AbortSignal): Promise<void> {
    let isDone = false;
    let failure: Error | undefined;
    act((error) => {
      isDone = true;
      failure = error;
    });
    const cancel = this.#reactor.every(
      SLOW_MS,
      () =>
        log.warn("waiting for the storage of the disks: {count} requests are not done", {
          count: this.#disks.reduce((sum, { gate }) => sum + gate.image.waiting, 0),
        }),
    );
    try {
      await this.#reactor.run(() => isDone, signal);
    } finally {
      cancel();
    }
    if (failure !== undefined) throw failure;
  }

  /** No VM uses the taps after all: they wait as before, and the activation is undone. */
  deactivate(): void {
    for (const { gate } of this.#disks) {
      gate.isOpen = false;
      gate.image.waitShortly(0);
    }
    for (const net of this.#nets) net.deafen();
    this.#isActive = false;
  }

  /**
   * Gives all taps away, open as they are: the VM runs here, and is about to be protected again.
   */
  surrender(): { readonly disks: readonly SecondaryDisk[]; readonly nets: readonly NetTap[] } {
    const given = { disks: this.#disks, nets: this.#nets };
    this.#disks = [];
    this.#nets = [];
    return given;
  }

  close(): void {
    for (const net of this.#nets) net.close();
    const until = performance.now() + FINISH_MS;
    for (const { server, gate } of this.#disks) {
      server.close();
      gate.image.finish(until);
      gate.image.close();
    }
  }
}
