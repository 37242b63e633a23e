/** For tests: small sessions that have every kind of frame, as docs/PROTOCOL.md shows them. */
import { checkpoint, fullStream, page, zero } from "../../qemu/testing/synthetic_stream.ts";
import { WireError } from "../../errors.ts";
import { encodeDiskMark } from "../events/disk_marks.ts";
import { encodeDiskQuery } from "../events/disk_digest.ts";
import { encodeTapEvent, encodeTapInput, type TapEvent } from "../events/tap_events.ts";
import { SecondaryTaps } from "../events/secondary_taps.ts";
import type { Primary, PrimaryTaps } from "../primary/primary.ts";
import { Replica } from "../secondary/replica.ts";
import { encodeVm } from "../vm_fields.ts";
import { FakeDisk } from "./fake_disk.ts";
import type { LoopbackConfig } from "./loopback.ts";

/** Whoever carries a session out: a primary, and what is between it and its secondary. */
export interface SessionLink {
  readonly primary: Primary;
  feed(bytes: Uint8Array): void;
  end(): void;
  pump(): void;
  pass(ms: number): void;
}

export interface SmallSession {
  readonly title: string;
  /** Made anew for each time that it is carried out. */
  config(): LoopbackConfig;
  run(link: SessionLink): void;
}

/** The VM's taps, as far as transactions know them: each transaction has the next of these lists. */
function tapsOf(...epochs: (readonly TapEvent[])[]): PrimaryTaps {
  let taken = 0;
  return {
    checkpointRequested: () => {},
    holdInputs: () => true,
    giveInputs: () => {},
    vmStops: () => {},
    drain: () => {},
    // Asked at a stream's block list, and where each epoch ends.
    takeEvents: () => (epochs[taken++] ?? []).map(encodeTapEvent),
    closeEpoch: () => {},
    release: () => {},
  };
}

const DISK_BYTES = 4 * 4096;
const ETHERNET = Uint8Array.fromHex("5254000000015254000000020800") as Uint8Array<ArrayBuffer>;
const text = (words: string) => new TextEncoder().encode(words);
const frameOf = (words: string) => Uint8Array.from([...ETHERNET, ...text(words)]);

const VM = {
  uuid: "00112233445566778899aabbccddeeff",
  name: "vm1",
  process: "0f0e0d0c0b0a09080706050403020100",
  shape: "c0ffee00c0ffee00c0ffee00c0ffee00",
};

/** Checkpoints, with a disk and a NIC: everything but what the other two have. */
const CHECKPOINTS: SmallSession = {
  title: "Checkpoints of a VM with a disk and a NIC; the sender leaves",
  config() {
    const copy = new FakeDisk(DISK_BYTES);
    copy.write(2 * 4096, new Uint8Array(4096).fill(1));
    const disk0 = { mode: "replicated", sizeBytes: DISK_BYTES, copy } as const;
    const secondaryTaps = new SecondaryTaps(new Map([["disk0", disk0]]), new Set(["net0"]));
    const mark = { name: "disk0", mark: new Uint8Array(16).fill(0xab), place: "@" };
    return {
      replica: new Replica(1e9, undefined, secondaryTaps),
      fields: [...encodeVm(VM), encodeDiskMark(mark)],
      taps: tapsOf(
        [{ kind: "disk", tap: "disk0", sizeBytes: DISK_BYTES, mode: "replicated" }],
        [
          { kind: "packet", tap: "net0", frame: frameOf("hello") },
          { kind: "write", tap: "disk0", offset: 4096, data: text("a line\n") },
        ],
        [],
        [
          { kind: "copy", tap: "disk0", offset: 8192, data: text("a chunk") },
          { kind: "copied", tap: "disk0" },
        ],
        [{ kind: "zero", tap: "disk0", offset: 4096, lengthBytes: 512 }],
      ),
    };
  },
  run(link) {
    const { primary } = link;
    const chunks = { chunkBytes: 4096, offset: 0, lengthBytes: DISK_BYTES };
    primary.queryDisk(encodeDiskQuery({ tap: "disk0", seedLow: 11, seedHigh: 22, ...chunks }));
    link.pump();
    link.feed(fullStream(1));
    primary.released(1);
    link.pass(1000);
    primary.forwardInputs(2, [encodeTapInput({ tap: "net0", frame: frameOf("hello, you") })]);
    link.pump();
    link.feed(fullStream(1));
    link.feed(checkpoint(2, page(4, 5, "pc.ram"), zero(0)));
    primary.released(3);
    link.pump();
    link.feed(checkpoint(3).subarray(0, 8));
    primary.leave({ reason: "goes-on", text: "interrupted" });
    link.pump();
  },
};

/** A stream that ends, packed. */
const PLAIN: SmallSession = {
  title: "A plain stream, packed, that ends: the VM is given away",
  config: () => ({
    stream: "plain",
    replica: new Replica(1e9, undefined, new SecondaryTaps(new Map(), new Set(["net0"]))),
    taps: tapsOf([], [{ kind: "packet", tap: "net0", frame: frameOf("hello") }]),
    compression: { treatments: [{ delta: false, pack: true, dedup: false }], cacheBytes: 1 << 20 },
  }),
  run(link) {
    link.feed(fullStream(1));
    link.end();
  },
};

/** A receiver that has not said what it takes. */
const REFUSED: SmallSession = {
  title: "A transaction that is more than the receiver takes",
  config: () => ({ maxTransactionBytes: 2048, hidesLimit: true }),
  run(link) {
    for (const act of [() => link.feed(fullStream(1)), () => link.pump()]) {
      try {
        act();
      } catch (error) {
        // The receiver's fault, then what the sender makes of its NACK.
        if (!(error instanceof WireError)) throw error;
      }
    }
  },
};

export const SMALL_SESSIONS: readonly SmallSession[] = [CHECKPOINTS, PLAIN, REFUSED];
