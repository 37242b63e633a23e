/** The frames that left each host, as seen on the client's bridge. */
import type { NetLab } from "../lab/network/net_lab.ts";
import { type PortFrame, PortSniffer } from "../lab/network/port_sniffer.ts";
import { GUEST_MAC } from "./plan.ts";
import type { DrillCheck } from "./report.ts";

/** Accuracy of the times. */
const TAKE_MS = 5;
const IPV4 = 0x0800;
const TCP = 6;

/** Where frames are seen: {@link PortSniffer}. */
export interface FrameSource extends Disposable {
  /** Frames since the last call, in the order in which they passed. */
  take(): readonly PortFrame[];
  /** Frames that passed unseen since the last call. */
  readonly missed: number;
}

/** Follows the guest's frames from before the fault to the end. */
export class DrillWire implements Disposable {
  readonly #source: FrameSource;
  readonly #timer: ReturnType<typeof setInterval>;
  /** Runs of frames by the same host, in the order in which they passed. */
  #runs: { readonly port: string; frames: number }[] = [];
  /** The last TCP segment of the guest, and the longest time without one between two hosts. */
  #lastSegment: { readonly port: string; readonly atMs: number } | undefined;
  #silenceMs: number | undefined;
  #missed = 0;

  /** @param source Disposed of together with this object. */
  constructor(source: FrameSource) {
    this.#source = source;
    this.#timer = setInterval(() => this.#take(), TAKE_MS);
  }

  /** Watches the bridge that connects the hosts and the client. */
  static watch(lab: NetLab): DrillWire {
    return new DrillWire(PortSniffer.open(lab.wire, ["primary-port", "secondary-port"]));
  }

  /** Frames of the guest that came from one host. */
  framesFrom(host: "primary" | "secondary"): number {
    this.#take();
    return this.#runs.filter(({ port }) => port === `${host}-port`)
      .reduce((sum, { frames }) => sum + frames, 0);
  }

  /**
   * From the guest's last TCP segment at one host to its first at the other: how long the
   * connection was silent. Undefined if the guest did not change hosts.
   */
  get silenceMs(): number | undefined {
    this.#take();
    return this.#silenceMs;
  }

  /** Forgets all frames so far. */
  restart(): void {
    this.#take();
    this.#runs = [];
    this.#silenceMs = undefined;
  }

  /** Once a frame has come from the other host, no more frames may come from the former primary. */
  check(primary: "primary" | "secondary" = "primary"): DrillCheck {
    this.#take();
    const first = `${primary}-port`;
    const second = `${primary === "primary" ? "secondary" : "primary"}-port`;
    const said = this.#runs.map(({ port, frames }) => `${frames} from the ${port.split("-")[0]}`);
    const order = this.#runs.map(({ port }) => port).join(" ");
    return {
      name: "no packet came from both sides",
      held: this.#missed === 0 && [first, second, `${first} ${second}`].includes(order),
      detail: (said.length > 0 ? `frames of the guest: ${said.join(", then ")}` : "no frames") +
        (this.#missed > 0 ? `; ${this.#missed} passed unseen` : ""),
    };
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#source[Symbol.dispose]();
  }

  #take(): void {
    for (const { port, frame, atMs } of this.#source.take()) {
      if (!GUEST_MAC.every((byte, i) => frame[6 + i] === byte)) continue;
      if (isTcp(frame)) {
        const last = this.#lastSegment;
        if (last !== undefined && last.port !== port) this.#silenceMs = atMs - last.atMs;
        this.#lastSegment = { port, atMs };
      }
      const run = this.#runs.at(-1);
      if (run?.port === port) run.frames++;
      else this.#runs.push({ port, frames: 1 });
    }
    this.#missed += this.#source.missed;
  }
}

function isTcp(frame: Uint8Array): boolean {
  return frame.length > 23 && (frame[12] << 8 | frame[13]) === IPV4 && frame[23] === TCP;
}
