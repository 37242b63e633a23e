/**
 * For tests: a sender that a seed makes up. It knows by the table of rules where its receiver stands, says
 * mostly what is right there, and now and then what is not: a header with another number, a frame out of
 * its place, a payload of noise, an event that no disk could take.
 */
import { checkpoint, fullStream, page, zero } from "../../qemu/testing/synthetic_stream.ts";
import { encodeHeader, type FrameHeader } from "../../txn/frame_header.ts";
import { FRAME_RULES, type FrameName } from "../../txn/frame_rules.ts";
import { encodeHello, FEATURE, PROTOCOL_VERSION } from "../../txn/hello.ts";
import { FramePacker } from "../../txn/packing.ts";
import { PayloadSum } from "../../txn/payload_sum.ts";
import { EndModel, FrameCutter, type WholeFrame } from "../../txn/testing/end_model.ts";
import type { Verdict } from "../../txn/testing/frame_oracle.ts";
import { HEADER_BYTES, TXN } from "../../txn/wire.ts";
import { encodeDiskQuery } from "../events/disk_digest.ts";
import { encodeTapEvent, encodeTapInput, type TapEvent } from "../events/tap_events.ts";
import type { Random } from "./random.ts";

/** What a receiver has that a made-up sender may name. */
export interface KnownTaps {
  readonly disk: string;
  readonly diskBytes: number;
  readonly net: string;
}

/** A frame that was made up, and what its receiver has to make of its header. */
export interface MadeUpFrame {
  readonly name: FrameName | "noise";
  readonly bytes: Uint8Array;
  /** What is known of it; a frame whose payload is at fault may be refused all the same. */
  readonly verdict: Verdict | { readonly is: "unknown" };
}

const NAMES = Object.keys(TXN) as FrameName[];
const ODD_TRANSACTIONS = [0, 1, 2, 2 ** 32, 2 ** 53 - 1];
/** CHECKPOINT_REQUEST and VMSTATE_SEND do not travel. */
const NOT_SENT_BYTES = 8;

export class MadeUpSender {
  readonly #random: Random;
  readonly #taps: KnownTaps;
  readonly #receiver: EndModel;
  readonly #cutter = new FrameCutter();
  readonly #features: number;
  readonly #packer = new FramePacker(() => 0);
  readonly #sum = new PayloadSum();
  /** What is left of the open transaction's stream. */
  #stream: Uint8Array = new Uint8Array(0);
  #hasNamedDisk = false;
  #hasSaidHello = false;
  #hasCopied = false;
  #madeUp = 0;

  /** @param committed The last transaction that the receiver has. */
  constructor(random: Random, committed: number, taps: KnownTaps) {
    this.#random = random;
    this.#taps = taps;
    this.#receiver = new EndModel("receiver", committed);
    const all = Object.values(FEATURE).reduce((bits, bit) => bits | bit, 0);
    this.#features = random.once(6) ? random.below(all + 1) : all;
  }

  /** The receiver has said this. */
  heard(bytes: Uint8Array): void {
    for (const frame of this.#cutter.push(bytes)) this.#receiver.says(frame);
  }

  /** Makes up the next frame. */
  next(): MadeUpFrame {
    const random = this.#random;
    if (random.once(400)) {
      return {
        name: "noise",
        bytes: random.bytes(1 + random.below(64)),
        verdict: { is: "unknown" },
      };
    }
    const name = this.#hasSaidHello && random.once(120) ? random.pick(NAMES) : this.#legalName();
    const right = this.#right(name);
    const frame = random.once(100) ? this.#spoilt(right) : right;
    return { name, bytes: bytesOf(frame), verdict: this.#judge(frame) };
  }

  /** What the table says of a frame; what its payload does to a receiver is not the table's. */
  #judge(frame: WholeFrame): MadeUpFrame["verdict"] {
    try {
      return this.#receiver.hears(frame);
    } catch {
      return { is: "unknown" };
    }
  }

  /** A frame whose place is here. */
  #legalName(): FrameName {
    const random = this.#random;
    const { state, agreed, acknowledged } = this.#receiver.standing;
    if (!this.#hasSaidHello) {
      this.#hasSaidHello = true;
      return "HELLO";
    }
    const offered = (names: readonly FrameName[]) =>
      random.pick(names.filter((name) => {
        const { needs } = FRAME_RULES[name];
        if (name === "RELEASED" && acknowledged === 0) return false;
        return needs === undefined || agreed.includes(needs);
      }));
    if (state === "open") {
      if (!this.#hasNamedDisk && agreed.includes("events")) return "EVENT";
      if (this.#stream.length === 0) return random.once(12) ? "CANCEL" : "COMMIT";
      return offered(["CONTINUE", "CONTINUE", "EVENT", "PACKED", "INPUT", "HEARTBEAT"]);
    }
    if (random.once(60)) return random.pick(["LEAVE", "HANDOVER"] as const);
    const seldom = ["RELEASED", "HEARTBEAT", "DIGEST_QUERY", "DISK_QUERY", "INPUT"] as const;
    return offered(["BEGIN", "BEGIN", "BEGIN", "BEGIN", ...seldom]);
  }

  /** A frame that is right as far as this sender knows. */
  #right(name: FrameName): WholeFrame {
    const { transaction, acknowledged, sequence } = this.#receiver.standing;
    const payload = this.#payload(name);
    const rule = FRAME_RULES[name];
    const numbers = {
      none: 0,
      next: transaction + 1,
      open: transaction,
      acknowledged,
      last: transaction,
      oldest: acknowledged + 1,
      some: transaction + 1,
      refused: 0,
    };
    return {
      header: {
        command: TXN[name],
        flags: name === "BEGIN" ? this.#begin() : 0,
        sequence: rule.sequence === "counted" ? sequence : 0,
        transaction: numbers[rule.transaction],
        lengthBytes: payload.length,
      },
      payload,
    };
  }

  #begin(): number {
    const random = this.#random;
    const { transaction, before, acknowledged } = this.#receiver.standing;
    this.#sum.begin();
    this.#madeUp++;
    const isFirst = acknowledged === before && transaction === before;
    if (isFirst || random.once(8)) {
      this.#stream = fullStream(this.#madeUp % 200);
      return random.once(5) && before > 0 ? 3 : 1;
    }
    const records = random.once(2) ? [page(random.below(8), random.below(200), "pc.ram")] : [];
    this.#stream = checkpoint(this.#madeUp % 200, ...records, zero(random.below(8), "pc.ram"))
      .subarray(NOT_SENT_BYTES);
    return 0;
  }

  /** The next bytes of the stream. */
  #piece(): Uint8Array {
    const random = this.#random;
    const most = random.once(3) ? this.#stream.length : Math.min(this.#stream.length, 700);
    const piece = this.#stream.slice(0, random.below(most + 1));
    this.#stream = this.#stream.subarray(piece.length);
    if (piece.length > 0 && random.once(400)) {
      piece[random.below(piece.length)] ^= 1 << random.below(8);
    }
    return piece;
  }

  #payload(name: FrameName): Uint8Array {
    const random = this.#random;
    switch (name) {
      case "HELLO":
        return encodeHello({
          version: PROTOCOL_VERSION,
          features: this.#features,
          session: random.bytes(16),
          heartbeatMs: random.below(2000),
          graceMs: random.below(5000),
          committed: 0,
          maxTransactionBytes: 0,
          software: "made up",
          fields: random.once(3)
            ? [{ tag: random.below(9), bytes: random.bytes(random.below(40)) }]
            : [],
        });
      case "CONTINUE": {
        const piece = this.#piece();
        this.#sum.add(piece);
        return piece;
      }
      case "EVENT": {
        const payload = this.#event();
        this.#sum.add(payload);
        return payload;
      }
      case "PACKED":
        return this.#receiver.standing.state === "open" ? this.#packed() : random.bytes(20);
      case "COMMIT":
        return random.once(100) ? random.bytes(12) : this.#sum.encode();
      case "DIGEST_QUERY":
        return random.bytes(8);
      case "DISK_QUERY":
        return encodeDiskQuery({
          tap: this.#taps.disk,
          seedLow: 11,
          seedHigh: random.once(60) ? 23 : 22,
          chunkBytes: 4096,
          offset: random.below(4) * 4096,
          lengthBytes: random.once(60) ? 2 ** 40 : 4096,
        });
      case "INPUT":
        return joined(
          encodeTapInput({ tap: this.#taps.net, frame: random.bytes(14 + random.below(100)) }),
        );
      case "LEAVE":
        return Uint8Array.of(
          random.once(8) ? 7 : random.below(2),
          ...random.bytes(random.below(30)),
        );
      case "NACK":
        return Uint8Array.of(0, random.below(20), ...random.bytes(random.below(20)));
      default: {
        const [least, most] = FRAME_RULES[name].bytes;
        return random.bytes(least + random.below(Math.min(most - least, 60) + 1));
      }
    }
  }

  #event(): Uint8Array {
    const random = this.#random;
    const { disk, net, diskBytes } = this.#taps;
    if (!this.#hasNamedDisk && !random.once(100)) {
      this.#hasNamedDisk = true;
      const sizeBytes = random.once(150) ? diskBytes + 1 : diskBytes;
      return joined(encodeTapEvent({ kind: "disk", tap: disk, sizeBytes, mode: "replicated" }));
    }
    const offset = random.once(120)
      ? random.pick([diskBytes, 2 ** 52, diskBytes - 1])
      : random.below(diskBytes - 600);
    const data = random.bytes(random.once(150) ? 0 : 1 + random.below(500));
    const events: readonly TapEvent[] = [
      { kind: "write", tap: disk, offset, data },
      {
        kind: "zero",
        tap: disk,
        offset,
        lengthBytes: random.once(100) ? 0 : random.below(500) + 1,
      },
      { kind: "copy", tap: disk, offset, data },
      { kind: "packet", tap: net, frame: random.bytes(14 + random.below(200)) },
    ];
    const isLast = this.#hasCopied ? random.once(300) : random.once(5);
    this.#hasCopied ||= isLast;
    const made = isLast ? { kind: "copied", tap: disk } as const : random.pick(events);
    const event = joined(encodeTapEvent(made));
    return random.once(200) ? event.slice(0, random.below(event.length)) : event;
  }

  #packed(): Uint8Array {
    const { transaction, sequence } = this.#receiver.standing;
    const pieces: Uint8Array[] = [];
    const frames = 1 + this.#random.below(3);
    for (let i = 0; i < frames; i++) {
      const isEvent = this.#hasNamedDisk && this.#random.once(3);
      const event = isEvent ? this.#event() : undefined;
      // What is no event at all is refused by the packer.
      const payload = event !== undefined && event.length > 2 ? event : this.#piece();
      this.#sum.add(payload);
      const command = payload === event ? TXN.EVENT : TXN.CONTINUE;
      const header = {
        command,
        flags: 0,
        sequence: sequence + i,
        transaction,
        lengthBytes: payload.length,
      };
      pieces.push(encodeHeader(header));
      if (payload.length > 0) pieces.push(payload);
    }
    const payload = joined(this.#packer.pack(pieces)).slice(HEADER_BYTES);
    if (this.#random.once(150)) payload[this.#random.below(payload.length)] ^= 0xff;
    return payload;
  }

  /** The same frame, and not right. */
  #spoilt({ header, payload }: WholeFrame): WholeFrame {
    const random = this.#random;
    const flags = header.flags ^ 1 << random.below(8);
    const changes: readonly Partial<FrameHeader>[] = [
      { flags },
      { sequence: header.sequence + random.pick([-1, 1, 2 ** 31]) >>> 0 },
      { transaction: random.pick(ODD_TRANSACTIONS) },
      { transaction: Math.max(0, header.transaction + random.pick([-1, 1])) },
      { command: random.below(30) },
    ];
    if (!random.once(4)) return { header: { ...header, ...random.pick(changes) }, payload };
    const other = random.once(2)
      ? payload.slice(0, random.below(payload.length + 1))
      : random.bytes(random.below(90));
    return { header: { ...header, lengthBytes: other.length }, payload: other };
  }
}

function bytesOf({ header, payload }: WholeFrame): Uint8Array {
  return joined([encodeHeader(header), payload]);
}

function joined(pieces: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}
