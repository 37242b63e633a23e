import { FramePacker, MAX_BATCH_PAYLOAD_BYTES, type PackingCounters } from "./packing.ts";
import type { SentBytes } from "./sender_config.ts";
import { encodeHeader } from "./frame_header.ts";
import { HEADER_BYTES, MAX_PAYLOAD_BYTES, TXN } from "./wire.ts";

/**
 * A sender's frames on their way out: headers, the places of frames in their transaction, and
 * packing.
 *
 * What is taken out is a list of views: headers, and the payloads as they were given, which stay the
 * caller's and must not change until they have been written, or packed.
 */
export class FrameWriter {
  #output: Uint8Array[] = [];
  /** The header of the last BEGIN. */
  #begin: Uint8Array | undefined;
  #sequence = 0;
  #packer: FramePacker | undefined;
  readonly sent: SentBytes = { stream: 0, events: 0, framing: 0 };
  /** Whether frames are packed from here on, if the peer takes packed ones at all. */
  packing = true;

  /** The peer takes packed frames. @param clock Measures how long packing takes. */
  mayPack(clock: () => number): void {
    this.#packer = new FramePacker(clock);
  }

  get #packs(): boolean {
    return this.packing && this.#packer !== undefined;
  }
  /** What packing has done; undefined where nothing may be packed. */
  get packed(): PackingCounters | undefined {
    return this.#packer?.counters;
  }
  /** Bytes of a payload that are to go in one frame, at the most. */
  get mostPayloadBytes(): number {
    return this.#packs ? MAX_BATCH_PAYLOAD_BYTES : MAX_PAYLOAD_BYTES;
  }

  /** BEGIN: the frames of a transaction are counted from here. */
  begin(flags: number, transaction: number): void {
    this.#sequence = 0;
    this.frame(TXN.BEGIN, flags, transaction);
    this.#begin = this.#output.at(-1);
  }

  /** A frame whose payload is in one piece. */
  frame(command: number, flags: number, transaction: number, payload?: Uint8Array): void {
    const lengthBytes = payload?.length ?? 0;
    this.header(command, flags, transaction, lengthBytes);
    if (command !== TXN.CONTINUE) this.sent.framing += lengthBytes;
    if (payload !== undefined && lengthBytes > 0) this.#output.push(payload);
  }

  /** A frame whose payload {@link piece} is given, piece by piece. */
  header(command: number, flags: number, transaction: number, lengthBytes: number): void {
    const inTransaction = command >= TXN.BEGIN && command <= TXN.CANCEL || command === TXN.EVENT;
    this.sent.framing += HEADER_BYTES;
    const sequence = inTransaction ? this.#sequence++ : 0;
    this.#output.push(encodeHeader({ command, flags, sequence, transaction, lengthBytes }));
  }

  piece(bytes: Uint8Array): void {
    if (bytes.length > 0) this.#output.push(bytes);
  }

  /**
   * Takes what is to be written, in order. A BEGIN that stands alone waits for what follows it:
   * the receiver would wake up to learn nothing, once for every checkpoint.
   */
  take(): Uint8Array[] {
    const output = this.#output;
    const onlyBegin = output.length === 1 && output[0] === this.#begin;
    if (output.length === 0 || onlyBegin) return [];
    this.#output = [];
    return this.#packs ? this.#packer!.pack(output) : output;
  }
}
