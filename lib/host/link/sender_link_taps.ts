import { TransportError } from "../../errors.ts";
import type { Primary } from "../../replica/primary/primary.ts";
import { FEATURE } from "../../txn/hello.ts";
import type { Reactor } from "../system/reactor.ts";
import type { PrimaryTapDevices } from "../taps/primary_tap_devices.ts";
import { digestSeed } from "./digest_seed.ts";

/** How long a frame for the guest may wait to be copied to the secondary. */
const INPUT_DELAY_MS = 3;

/** The link that taps are a part of. */
interface TappedLink {
  /** Reads and writes what is possible now. */
  pump(): void;
  isClosed(): boolean;
}

/** What one link does for the VM's taps, which outlive it. */
export class SenderLinkTaps {
  readonly #primary: Primary;
  readonly #peerName: string;
  readonly #reactor: Reactor;
  readonly #link: TappedLink;
  #cancelInputs: (() => void) | undefined;

  constructor(
    readonly set: PrimaryTapDevices,
    primary: Primary,
    peerName: string,
    reactor: Reactor,
    link: TappedLink,
  ) {
    this.#primary = primary;
    this.#peerName = peerName;
    this.#reactor = reactor;
    this.#link = link;
    // Without taps the secondary keeps nothing until RELEASED, except what an earlier session with
    // taps has left.
    let isFirst = true;
    set.onReleased = (transaction) => {
      if (isFirst || !set.isEmpty) primary.released(transaction);
      isFirst = false;
    };
    set.onInputsTaken = () => {
      if (primary.dialogue.inputsTaken()) link.pump();
    };
    set.onInputs = (transaction, inputs) => this.#forwardInputs(transaction, inputs);
  }

  /**
   * The secondary has sent its HELLO.
   *
   * @param committed The last transaction that the secondary has.
   * @throws {TransportError} if the secondary does not take events.
   */
  begin(features: number, committed: number): void {
    if (this.set.isEmpty) return;
    if ((features & FEATURE.events) === 0) {
      throw new TransportError(this.#peerName, "connect", "the secondary does not take events", {
        party: "peer",
        hint: "run the same kemari on both hosts",
      });
    }
    if ((features & FEATURE.diskDigests) === 0) return this.set.begin(committed);
    this.set.begin(committed, {
      ...digestSeed(),
      mayAsk: () => !this.#link.isClosed() && this.#primary.mayQueryDisk,
      ask: (query) => {
        this.#primary.queryDisk(query);
        this.#link.pump();
      },
    });
  }

  /** The waiting inputs are written now, or never. */
  inputsGoOut(): void {
    this.#cancelInputs?.();
    this.#cancelInputs = undefined;
  }

  /**
   * Best effort: frames that the secondary does not get, the world must send again. A frame waits
   * for the next output, if that comes soon, rather than wake the secondary once more. The cost of
   * copying was lost in the noise: without it 288 and 360 round trips a second, with it 255 to 335
   * (two cores).
   */
  #forwardInputs(transaction: number, inputs: readonly Uint8Array[][]): void {
    if (this.#link.isClosed() || !this.#primary.forwardInputs(transaction, inputs)) return;
    this.#cancelInputs ??= this.#reactor.after(INPUT_DELAY_MS, () => this.#link.pump());
  }
}
