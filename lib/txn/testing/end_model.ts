/**
 * For tests: where an end of a session stands, by what it has said and heard, and nothing else. Whoever
 * makes frames up goes by it, and whoever listens to two ends.
 */
import { decodeHeader, type FrameHeader } from "../frame_header.ts";
import {
  type End,
  type FrameName,
  frameName,
  type ReceiverState,
  type SenderState,
} from "../frame_rules.ts";
import { agreedFeatures, decodeHello, FEATURE, type FeatureName } from "../hello.ts";
import { DIGEST_LAST, HEADER_BYTES } from "../wire.ts";
import { ZstdDecompressor } from "../zstd_context.ts";
import { judge, type Standing, type Verdict } from "./frame_oracle.ts";

/** A frame, whole. */
export interface WholeFrame {
  readonly header: FrameHeader;
  readonly payload: Uint8Array;
}

/** Cuts one direction of a connection into frames; the bytes may come in any pieces. */
export class FrameCutter {
  #kept = new Uint8Array(0);

  /** @returns The frames that are whole by now. */
  push(bytes: Uint8Array): WholeFrame[] {
    const all = new Uint8Array(this.#kept.length + bytes.length);
    all.set(this.#kept);
    all.set(bytes, this.#kept.length);
    const frames: WholeFrame[] = [];
    let at = 0;
    for (;;) {
      const header = decodeHeader(all, at, all.length, at);
      const end = at + HEADER_BYTES + (header?.lengthBytes ?? 0);
      if (header === undefined || end > all.length) break;
      frames.push({ header, payload: all.slice(at + HEADER_BYTES, end) });
      at = end;
    }
    this.#kept = all.slice(at);
    return frames;
  }
}

/** One end. */
export class EndModel {
  readonly #end: End;
  #state: SenderState | ReceiverState = "hello";
  #features = { own: 0, peer: 0 };
  #before = 0;
  #transaction = 0;
  #acknowledged = 0;
  #sequence = 0;
  /** How many of each wait for an answer. */
  readonly #waiting = new Map<FrameName, number>();
  readonly #zstd = new ZstdDecompressor();

  /** @param committed A receiver's replica's last transaction; a sender hears of it. */
  constructor(end: End, committed = 0) {
    this.#end = end;
    this.#begin(committed);
  }

  get standing(): Standing {
    const { own, peer } = this.#features;
    const bits = this.#end === "sender" ? agreedFeatures(own, peer) : agreedFeatures(peer, own);
    return {
      end: this.#end,
      state: this.#state,
      agreed: (Object.keys(FEATURE) as FeatureName[]).filter((name) => bits & FEATURE[name]),
      before: this.#before,
      transaction: this.#transaction,
      acknowledged: this.#acknowledged,
      sequence: this.#sequence,
      waiting: [...this.#waiting].flatMap(([name, count]) => count > 0 ? [name] : []),
    };
  }

  /** This end says a frame. */
  says({ header, payload }: WholeFrame): void {
    const name = frameName(header.command)!;
    if (name === "HELLO") this.#features.own = decodeHello(payload, 0).features;
    if (this.#end === "sender") return this.#asSender(name, header, payload);
    switch (name) {
      case "HELLO":
        this.#state = "idle";
        return;
      case "ACK":
        this.#acknowledged = header.transaction;
        if (this.#state === "handover") this.#state = "over";
        return;
      case "DIGEST":
        if ((header.flags & DIGEST_LAST) !== 0) this.#state = "idle";
    }
  }

  /** This end hears a frame. @returns What it has to make of it. */
  hears(frame: WholeFrame): Verdict {
    const { header, payload } = frame;
    const verdict = judge(this.standing, header);
    if (verdict.is !== "taken") return verdict;
    const name = frameName(header.command)!;
    if (name === "HELLO") {
      const hello = decodeHello(payload, 0);
      this.#features.peer = hello.features;
      if (this.#end === "sender") {
        this.#state = "ready";
        this.#begin(hello.committed);
      }
      return verdict;
    }
    if (this.#end === "receiver") return this.#asReceiver(name, frame);
    switch (name) {
      case "ACK":
        if (this.#state === "handover") {
          this.#state = "done";
        } else {
          this.#acknowledged = header.transaction;
          this.#answered("COMMIT");
        }
        break;
      case "NACK":
      case "LEFT":
        this.#state = "done";
        break;
      case "DIGEST":
        if ((header.flags & DIGEST_LAST) === 0) break;
        this.#answered("DIGEST_QUERY");
        if (this.#state === "asking") this.#state = "ready";
        break;
      case "DISK_DIGEST":
        if ((header.flags & DIGEST_LAST) !== 0) this.#answered("DISK_QUERY");
    }
    return verdict;
  }

  /** What becomes of a sender that says it. */
  #asSender(name: FrameName, header: FrameHeader, payload: Uint8Array): void {
    switch (name) {
      case "BEGIN":
        this.#state = "open";
        this.#transaction = header.transaction;
        this.#sequence = 1;
        return;
      case "CONTINUE":
      case "EVENT":
        this.#sequence++;
        return;
      case "PACKED":
        for (const inner of this.#unpack(payload)) this.says(inner);
        return;
      case "COMMIT":
        this.#state = "ready";
        return this.#asks("COMMIT");
      case "CANCEL":
        this.#state = "ready";
        this.#transaction--;
        return;
      case "DIGEST_QUERY":
        this.#state = "asking";
        return this.#asks(name);
      case "HANDOVER":
        this.#state = "handover";
        return this.#asks(name);
      case "LEAVE":
        this.#state = "leaving";
        return this.#asks(name);
      case "DISK_QUERY":
        return this.#asks(name);
    }
  }

  /** What becomes of a receiver that hears it. */
  #asReceiver(name: FrameName, { header, payload }: WholeFrame): Verdict {
    switch (name) {
      case "BEGIN":
        this.#state = "open";
        this.#transaction = header.transaction;
        this.#sequence = 1;
        break;
      case "CONTINUE":
      case "EVENT":
        this.#sequence++;
        break;
      case "PACKED":
        for (const inner of this.#unpack(payload)) {
          const verdict = this.hears(inner);
          if (verdict.is !== "taken") return verdict;
        }
        break;
      case "COMMIT":
        this.#state = "idle";
        break;
      case "CANCEL":
        this.#state = "idle";
        this.#transaction--;
        break;
      case "DIGEST_QUERY":
        this.#state = "telling";
        break;
      case "HANDOVER":
        this.#state = "handover";
        break;
      case "LEAVE":
        this.#state = "over";
    }
    return { is: "taken" };
  }

  #begin(committed: number): void {
    this.#before = this.#transaction = this.#acknowledged = committed;
  }

  #asks(name: FrameName): void {
    this.#waiting.set(name, (this.#waiting.get(name) ?? 0) + 1);
  }

  #answered(name: FrameName): void {
    this.#waiting.set(name, this.#waiting.get(name)! - 1);
  }

  #unpack(payload: Uint8Array): WholeFrame[] {
    const lengthBytes = new DataView(payload.buffer, payload.byteOffset).getUint32(0);
    const frames = new Uint8Array(lengthBytes + 1);
    this.#zstd.decompress(payload, 4, payload.length, frames, lengthBytes);
    return new FrameCutter().push(frames.subarray(0, lengthBytes));
  }
}

/** Listens to both ends of a connection, and knows where they stand. */
export class SessionModel {
  readonly sender = new EndModel("sender");
  readonly receiver: EndModel;
  readonly #cutters = { sender: new FrameCutter(), receiver: new FrameCutter() };

  /** @param committed The replica's last transaction. */
  constructor(committed: number) {
    this.receiver = new EndModel("receiver", committed);
  }

  /**
   * Bytes that one end says are heard by the other.
   *
   * @returns What that has to make of them, frame by frame.
   */
  passes(from: End, bytes: Uint8Array): { readonly name: FrameName; readonly verdict: Verdict }[] {
    const to = from === "sender" ? this.receiver : this.sender;
    return this.#cutters[from].push(bytes).map((frame) => {
      this[from].says(frame);
      return { name: frameName(frame.header.command)!, verdict: to.hears(frame) };
    });
  }
}
