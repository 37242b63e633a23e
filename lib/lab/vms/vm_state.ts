/**
 * For tests: the VM that a stream describes, transaction by transaction, worked out without the
 * replica, so that the two can be held against each other.
 */
import { createHash } from "node:crypto";
import { Carry } from "../../bytes/carry.ts";
import { decodeXbzrle } from "../../qemu/xbzrle.ts";
import type { RamRecord } from "../../qemu/ram_record.ts";
import type { StreamEvent, StreamVisitor } from "../../qemu/stream_events.ts";
import { StreamParser } from "../../qemu/stream_parser.ts";
import type { RamBlock } from "../../qemu/wire.ts";

/** A VM at the end of one transaction. Hashes are hex. */
interface VmState {
  readonly configuration: string;
  readonly blocks: string;
  /** Of all RAM, block by block. */
  readonly ram: string;
  readonly device: string;
  readonly vmdescription: string;
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Follows a stream and notes each committed state. */
class VmFollower implements StreamVisitor {
  readonly states: VmState[] = [];
  #blocks: readonly RamBlock[] = [];
  #ram: Uint8Array[] = [];
  #configuration = "";
  #device = "";
  #vmdescription = "";
  pageBytes = 4096;

  event(event: StreamEvent): void {
    switch (event.kind) {
      case "configuration":
        this.#configuration = sha256(event.configuration.raw);
        return;
      case "ram-blocks":
        this.#blocks = event.blocks;
        this.#ram = event.blocks.map(({ lengthBytes }) => new Uint8Array(lengthBytes));
        return;
      case "device-state":
        this.#device = sha256(event.state);
        return;
      case "vmdescription":
        this.#vmdescription = sha256(event.json);
        return;
      case "checkpoint":
        this.#device = sha256(event.state);
        return this.#note();
      case "stream-complete":
        return this.#note();
    }
  }

  page({ kind, block, pageOffset, bytes, at, lengthBytes }: RamRecord): void {
    const page = this.#ram[block].subarray(pageOffset, pageOffset + this.pageBytes);
    if (kind === "page") page.set(bytes.subarray(at, at + lengthBytes));
    else if (kind === "fill") page.fill(bytes[at]);
    else decodeXbzrle(bytes, at, lengthBytes, page, 0);
  }

  mark(): void {}

  #note(): void {
    const hash = createHash("sha256");
    for (const bytes of this.#ram) hash.update(bytes);
    this.states.push({
      configuration: this.#configuration,
      blocks: this.#blocks.map(({ name, lengthBytes }) => `${name} ${lengthBytes}`).join(", "),
      ram: hash.digest("hex"),
      device: this.#device,
      vmdescription: this.#vmdescription,
    });
  }
}

/** The VM after each transaction of a stream: one of a plain stream, one more per checkpoint. */
export function vmStatesOf(stream: Uint8Array): VmState[] {
  const follower = new VmFollower();
  const parser = new StreamParser(follower);
  const carry = new Carry();
  // Small pieces: the page size is known before any page.
  for (let at = 0; at < stream.length; at += 512) {
    carry.feed(stream, at, Math.min(at + 512, stream.length), (bytes, start, end) => {
      follower.pageBytes = parser.pageBytes;
      return parser.parse(bytes, start, end);
    });
  }
  parser.finish(carry.pendingBytes);
  return follower.states;
}

/** The VM that a plain stream leaves. */
export function vmStateOf(stream: Uint8Array): VmState {
  return vmStatesOf(stream).at(-1)!;
}
