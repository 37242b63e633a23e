/** What a secondary's NACK says of each frame that it refuses, by the table of rules. */
import assert from "node:assert/strict";
import { QemuError, TransportError, WireError } from "../../errors.ts";
import { fullStream } from "../../qemu/testing/synthetic_stream.ts";
import { FRAME_RULES, type FrameName, type ReceiverState } from "../../txn/frame_rules.ts";
import { encodeHello, FEATURE, OFFERED_FEATURES, PROTOCOL_VERSION } from "../../txn/hello.ts";
import { PayloadSum } from "../../txn/payload_sum.ts";
import type { ReceiverConfig } from "../../txn/receiver.ts";
import { judge, type Standing } from "../../txn/testing/frame_oracle.ts";
import { frame, OPTIONS, SESSION } from "../../txn/testing/session_pair.ts";
import { rightFrame } from "../../txn/testing/standing_ends.ts";
import type { FrameHeader } from "../../txn/frame_header.ts";
import { HEADER_BYTES, NACK_REASON, type NackReason, TXN } from "../../txn/wire.ts";
import { encodeDiskQuery } from "../events/disk_digest.ts";
import { SecondaryTaps } from "../events/secondary_taps.ts";
import { encodeTapEvent, type TapEvent } from "../events/tap_events.ts";
import { createPageDigest } from "../pages/page_digest.ts";
import { MEMORY_STORE, type ReplicaStore } from "../pages/page_store.ts";
import { FakeDisk } from "../testing/fake_disk.ts";
import { fingerprint } from "../testing/loopback.ts";
import { Replica } from "./replica.ts";
import { Secondary } from "./secondary.ts";

const STREAM = fullStream(1);
const DISK_BYTES = 8192;
const SEED = { seedLow: 1, seedHigh: 2 };
const digest = await createPageDigest(SEED.seedLow, SEED.seedHigh);

interface Setting {
  readonly limit?: number;
  readonly store?: ReplicaStore;
  readonly config?: Partial<ReceiverConfig>;
}

/** A secondary with a disk, and what it takes to speak to it. */
class Scene {
  readonly copy = new FakeDisk(DISK_BYTES);
  readonly taps = new SecondaryTaps(
    new Map([["d", {
      mode: "replicated" as const,
      sizeBytes: this.copy.sizeBytes,
      copy: this.copy,
    }]]),
    new Set(["n"]),
  );
  readonly replica: Replica;
  readonly secondary: Secondary;
  readonly #sum = new PayloadSum();
  #transaction: number;
  #sequence = 0;

  constructor({ limit = 1e9, store = MEMORY_STORE, config }: Setting = {}, replica?: Replica) {
    this.replica = replica ?? new Replica(limit, undefined, this.taps, store);
    this.#transaction = this.replica.committed;
    const counters = { committed: 0, pages: 0, zeroPages: 0, payloadBytes: 0, lastPayloadBytes: 0 };
    const committed = this.replica.committed;
    const whole = { ...OPTIONS, committed, takesInputs: true, ...config };
    this.secondary = new Secondary(this.replica, counters, whole, 0, () => 0);
  }

  /** Says a frame, or only its header. */
  say(header: Partial<FrameHeader> & { command: number }, payload?: Uint8Array): void {
    const lengthBytes = payload?.length ?? 0;
    const [head] = frame({ lengthBytes, ...header });
    const bytes = new Uint8Array(HEADER_BYTES + lengthBytes);
    bytes.set(head);
    bytes.set(payload ?? [], HEADER_BYTES);
    this.secondary.receive(bytes, 0, bytes.length, 0);
  }

  hello(features = OFFERED_FEATURES | FEATURE.inputs, version = PROTOCOL_VERSION): void {
    const hello = { ...OPTIONS, version, features, session: SESSION, committed: 0 };
    this.say({ command: TXN.HELLO }, encodeHello({ ...hello, maxTransactionBytes: 0 }));
  }

  begin(flags = 1): void {
    this.#sequence = 0;
    this.#sum.begin();
    this.say({ command: TXN.BEGIN, flags, transaction: ++this.#transaction });
  }

  inside(command: number, payload: Uint8Array): void {
    if (command !== TXN.COMMIT) this.#sum.add(payload);
    this.say({ command, transaction: this.#transaction, sequence: ++this.#sequence }, payload);
  }

  event(event: TapEvent): void {
    const payload = Uint8Array.from(encodeTapEvent(event).flatMap((piece) => [...piece]));
    this.inside(TXN.EVENT, payload);
  }

  disk(): void {
    this.event({ kind: "disk", tap: "d", sizeBytes: DISK_BYTES, mode: "replicated" });
  }

  commit(): void {
    this.inside(TXN.COMMIT, this.#sum.encode());
  }

  /** A whole transaction. */
  transaction(isCopied = true): void {
    this.begin();
    this.disk();
    if (isCopied) this.event({ kind: "copied", tap: "d" });
    this.inside(TXN.CONTINUE, STREAM);
    this.commit();
  }

  handover(): void {
    this.say({ command: TXN.HANDOVER, transaction: this.#transaction });
  }

  /** Why it was refused. */
  get reason(): NackReason {
    const output = this.secondary.takeOutput();
    const bytes = Uint8Array.from(output.flatMap((piece) => [...piece]));
    const view = new DataView(bytes.buffer);
    for (let at = 0; at < bytes.length; at += HEADER_BYTES + view.getUint32(at + 16)) {
      if (bytes[at + 2] !== TXN.NACK) continue;
      const code = view.getUint16(at + HEADER_BYTES);
      return (Object.keys(NACK_REASON) as NackReason[]).find((name) => NACK_REASON[name] === code)!;
    }
    return assert.fail("there is no NACK");
  }
}

/** A replica that has a transaction. */
function committed(): Replica {
  const scene = new Scene();
  scene.hello();
  scene.transaction();
  scene.secondary.takeOutput();
  assert.equal(scene.replica.committed, 1);
  return scene.replica;
}

const REPLICA = committed();
const WHOLE = fingerprint(REPLICA);

/** A new session of it, in some state. */
function sceneIn(state: ReceiverState): { scene: Scene; standing: Standing } {
  const scene = new Scene({}, REPLICA);
  if (state !== "hello") scene.hello();
  if (state === "telling") scene.say({ command: TXN.DIGEST_QUERY }, new Uint8Array(8));
  if (state === "open") {
    scene.begin();
    scene.inside(TXN.CONTINUE, new Uint8Array(0));
  }
  const agreed = Object.keys(FEATURE).filter((name) => name !== "storesPages");
  return {
    scene,
    standing: {
      ...{ end: "receiver", state, before: 1, acknowledged: 1, sequence: 2, waiting: [] },
      agreed: (state === "hello" ? [] : agreed) as Standing["agreed"],
      transaction: state === "open" ? 2 : 1,
    },
  };
}

/** What may be wrong with a header. */
const FAULTS: readonly ((header: FrameHeader) => FrameHeader)[] = [
  (header) => header,
  (header) => ({ ...header, flags: 0x80 }),
  (header) => ({ ...header, sequence: header.sequence + 1 }),
  (header) => ({ ...header, transaction: header.transaction + 1 }),
  (header) => ({ ...header, transaction: 2 ** 53 }),
  (header) => ({ ...header, lengthBytes: boundsOf(header)[1] + 1 }),
  (header) => ({ ...header, lengthBytes: Math.max(0, boundsOf(header)[0] - 1) }),
];

function boundsOf({ command }: FrameHeader): readonly [number, number] {
  return FRAME_RULES[NAMES.find((name) => TXN[name] === command)!].bytes;
}

const NAMES = Object.keys(TXN) as FrameName[];

for (const state of ["hello", "idle", "telling", "open"] as const) {
  Deno.test(`in ${state}: what the table refuses gets NACK protocol, and the replica stays`, () => {
    let refused = 0;
    for (const name of NAMES) {
      for (const fault of FAULTS) {
        const { scene, standing } = sceneIn(state);
        const header = fault(rightFrame(name, standing).header);
        const verdict = judge(standing, header);
        if (verdict.is !== "refused") {
          scene.secondary.abort();
          continue;
        }
        refused++;
        const words = `${name} ${JSON.stringify(header)}`;
        assert.throws(() => scene.say(header), WireError, words);
        assert.equal(scene.reason, verdict.nack, words);
        assert.equal(fingerprint(REPLICA), WHOLE, words);
        assert.equal(REPLICA.staging, false, words);
      }
    }
    assert.ok(refused > 80, `${refused}`);
  });
}

const noRoom = () => {
  throw new TransportError("replica", "write", "no room", { party: "replica" });
};
const refuseAs = (fault: "other-vm" | "same-image") => () => {
  throw new WireError("transaction", 0, fault, "not here");
};

/** One way to get each reason, by frame. */
const WAYS: readonly (readonly [FrameName, NackReason, Setting, (scene: Scene) => void])[] = [
  ["HELLO", "version", {}, (scene) => scene.hello(0, 2)],
  ["HELLO", "version", {}, (scene) => scene.hello(0x0001_0000)],
  ["HELLO", "other-vm", { config: { admit: refuseAs("other-vm") } }, (scene) => scene.hello()],
  ["HELLO", "same-image", { config: { admit: refuseAs("same-image") } }, (scene) => scene.hello()],
  ["HELLO", "storage", { config: { admit: noRoom } }, (scene) => scene.hello()],
  ["CONTINUE", "stream", {}, (scene) => {
    scene.hello();
    scene.begin();
    scene.inside(TXN.CONTINUE, new Uint8Array(8).fill(0x58));
  }],
  ["CONTINUE", "too-large", { limit: 2048 }, (scene) => {
    scene.hello();
    scene.begin();
    scene.inside(TXN.CONTINUE, STREAM);
  }],
  ["CONTINUE", "other-vm", {}, (scene) => {
    scene.replica.admitStream = refuseAs("other-vm");
    scene.hello();
    scene.begin();
    scene.inside(TXN.CONTINUE, STREAM);
  }],
  ["CONTINUE", "storage", { store: { ...MEMORY_STORE, create: noRoom } }, (scene) => {
    scene.hello();
    scene.begin();
    scene.inside(TXN.CONTINUE, STREAM);
  }],
  ["EVENT", "too-large", { limit: 100 }, (scene) => {
    scene.hello();
    scene.begin();
    scene.disk();
    scene.event({ kind: "write", tap: "d", offset: 0, data: new Uint8Array(100) });
  }],
  ["COMMIT", "checksum", {}, (scene) => {
    scene.hello();
    scene.begin();
    scene.inside(TXN.COMMIT, new Uint8Array(12).fill(1));
  }],
  ["COMMIT", "stream", {}, (scene) => {
    scene.hello();
    scene.begin();
    scene.disk();
    scene.inside(TXN.CONTINUE, STREAM.subarray(0, -1));
    scene.commit();
  }],
  ["COMMIT", "storage", { store: { ...MEMORY_STORE, begin: noRoom } }, (scene) => {
    scene.hello();
    scene.transaction();
  }],
  ["COMMIT", "not-loaded", {}, (scene) => {
    // Whoever looks at a transaction before its ACK says that its VM cannot be loaded here.
    const error = new QemuError("incoming", "GenericError", "no such device", { party: "standby" });
    scene.hello();
    scene.secondary.refuse(error);
    throw error;
  }],
  ["HANDOVER", "storage", {}, (scene) => {
    scene.hello();
    scene.transaction(false);
    scene.secondary.takeOutput();
    scene.handover();
  }],
  ["DISK_QUERY", "storage", {}, (scene) => {
    scene.hello();
    const range = { chunkBytes: 4096, offset: 0, lengthBytes: DISK_BYTES };
    scene.say({ command: TXN.DISK_QUERY }, encodeDiskQuery({ tap: "d", ...SEED, ...range }));
    const asked = scene.secondary.takeEvents().find(({ kind }) => kind === "disk-query");
    assert.ok(asked?.kind === "disk-query");
    const broken = { ...asked.copy, sizeBytes: DISK_BYTES, zeroBytes: noRoom, read: noRoom };
    try {
      for (const waits of scene.secondary.answerDiskQuery(asked.query, broken as never, digest)) {
        waits?.(() => {});
      }
    } catch (error) {
      assert.ok(error instanceof TransportError);
      scene.secondary.storageFault(error);
      throw error;
    }
  }],
];

for (const [name, reason, setting, act] of WAYS) {
  Deno.test(`${name} gets NACK ${reason} where it is due`, () => {
    const scene = new Scene(setting);
    assert.throws(() => act(scene));
    assert.equal(scene.reason, reason);
  });
}

Deno.test("the table has the reasons that there is a way to get, and no others", () => {
  for (const name of NAMES) {
    const ways = WAYS.filter(([of]) => of === name).map(([, reason]) => reason);
    assert.deepEqual([...new Set(ways)].sort(), [...FRAME_RULES[name].nacks ?? []].sort(), name);
  }
});
