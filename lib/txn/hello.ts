/** HELLO: what both ends say first, and the features that they offer with it. */
import { foreignText } from "../foreign_text.ts";
import { decodeHelloFields, encodeHelloFields, type HelloField } from "./hello_fields.ts";
import { MAX_SOFTWARE_BYTES, MIN_HELLO_BYTES } from "./wire.ts";
import { refuse } from "./wire_fault.ts";
import { HAS_ZSTD } from "./zstd_context.ts";

/** Version of the protocol; a peer of another one is refused. */
export const PROTOCOL_VERSION = 1;

/** What both ends say first. */
export interface Hello {
  readonly version: number;
  /** Bits of {@link FEATURE}; both ends use what both have. */
  readonly features: number;
  /** 16 random bytes that name the sender's session; the receiver answers with the sender's. */
  readonly session: Uint8Array;
  readonly heartbeatMs: number;
  readonly graceMs: number;
  /** Last committed transaction of the receiver's replica; 0 if it has none. */
  readonly committed: number;
  /**
   * Bytes of pages, and of events, that a transaction may bring to the receiver; 0 from the sender, and
   * from a receiver that tells no limit.
   */
  readonly maxTransactionBytes: number;
  /** Name and version, for logs. */
  readonly software: string;
  /** What else is said; what it means is not this room's. */
  readonly fields?: readonly HelloField[];
}

/**
 * Parts of the protocol beyond its version. The low 16 bits offer: both ends use what both offer.
 * The high 16 bits demand: an end that does not know one refuses the peer.
 */
export const FEATURE = {
  /** DIGEST_QUERY is answered. */
  digests: 0x1,
  /** EVENT is taken, and RELEASED is understood. */
  events: 0x2,
  /** PACKED is taken. */
  packed: 0x4,
  /** DISK_QUERY is answered. */
  diskDigests: 0x8,
  /** INPUT is taken: only a receiver says so, if it has a use for it. */
  inputs: 0x10,
  /** LEAVE has a payload, and is answered by LEFT. */
  farewell: 0x20,
  /**
   * Pages of a whole stream that builds on nothing do not count against the limit: only a receiver
   * says so, which stores them as they come.
   */
  storesPages: 0x40,
} as const;
export type FeatureName = keyof typeof FEATURE;

/** A feature as docs/PROTOCOL.md names it. */
export function featureWord(name: FeatureName): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** What a receiver alone says: its sender has nothing to offer in return. */
const OF_RECEIVER = FEATURE.inputs | FEATURE.storesPages;

/** What a session may use: what both ends offer. */
export function agreedFeatures(ofSender: number, ofReceiver: number): number {
  return ofSender & ofReceiver | ofReceiver & OF_RECEIVER;
}

/** What this version offers, at either end. */
export const OFFERED_FEATURES = FEATURE.digests | FEATURE.events | FEATURE.diskDigests |
  FEATURE.farewell |
  (HAS_ZSTD ? FEATURE.packed : 0);
const DEMANDED_FEATURES = 0xffff_0000;

/** "KEMARI", CR, LF: a transfer that mangles line ends shows at once. */
const HELLO_MAGIC = new TextEncoder().encode("KEMARI\r\n");

/**
 * Encodes HELLO's payload: `8 bytes magic, u32 version, u32 features, 16 bytes session,
 * u32 heartbeat ms, u32 grace ms, u64 committed, u64 max transaction, u16 n, n bytes software`, then fields, see {@link encodeHelloFields}.
 */
export function encodeHello(hello: Hello): Uint8Array {
  const software = new TextEncoder().encode(hello.software).subarray(0, MAX_SOFTWARE_BYTES);
  const fields = encodeHelloFields(hello.fields ?? []);
  const bytes = new Uint8Array(MIN_HELLO_BYTES + software.length + fields.length);
  const view = new DataView(bytes.buffer);
  bytes.set(HELLO_MAGIC);
  view.setUint32(8, hello.version);
  view.setUint32(12, hello.features);
  bytes.set(hello.session, 16);
  view.setUint32(32, hello.heartbeatMs);
  view.setUint32(36, hello.graceMs);
  view.setBigUint64(40, BigInt(hello.committed));
  view.setBigUint64(48, BigInt(hello.maxTransactionBytes));
  view.setUint16(56, software.length);
  bytes.set(software, MIN_HELLO_BYTES);
  bytes.set(fields, MIN_HELLO_BYTES + software.length);
  return bytes;
}

/**
 * Decodes HELLO's payload. Fields that are not known are kept and ignored: later versions may add.
 *
 * @throws {WireError} `bad-magic`, `bad-version`, `bad-length`, `bad-value`, or `unsupported` for a
 *   demanded feature.
 */
export function decodeHello(payload: Uint8Array, offset: number): Hello {
  if (HELLO_MAGIC.some((byte, i) => payload[i] !== byte)) {
    refuse(offset, "bad-magic", "HELLO without its magic");
  }
  if (payload.length < 12) refuse(offset, "bad-length", `HELLO of ${payload.length} bytes`);
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const version = view.getUint32(8);
  if (version !== PROTOCOL_VERSION) {
    refuse(
      offset + 8,
      "bad-version",
      `the peer speaks version ${version} of the protocol, this end version ${PROTOCOL_VERSION}`,
      "run the same kemari on both hosts",
    );
  }
  if (payload.length < MIN_HELLO_BYTES) {
    refuse(offset, "bad-length", `HELLO of ${payload.length} bytes`);
  }
  const features = view.getUint32(12);
  const demanded = (features & DEMANDED_FEATURES) >>> 0;
  if (demanded !== 0) {
    refuse(
      offset + 12,
      "unsupported",
      `the peer demands features 0x${demanded.toString(16)}, which this end does not have`,
      "run the same kemari on both hosts",
    );
  }
  const softwareBytes = view.getUint16(56);
  if (softwareBytes > MAX_SOFTWARE_BYTES) {
    refuse(offset + 56, "bad-length", `HELLO with ${softwareBytes} bytes of software's name`);
  }
  const softwareEnd = MIN_HELLO_BYTES + softwareBytes;
  if (softwareEnd > payload.length) refuse(offset + 56, "bad-length", "HELLO ends in its name");
  const fields = decodeHelloFields(payload, softwareEnd, offset);
  return {
    version,
    features,
    session: payload.slice(16, 32),
    heartbeatMs: view.getUint32(32),
    graceMs: view.getUint32(36),
    committed: safeU64(view, 40, offset),
    maxTransactionBytes: safeU64(view, 48, offset),
    software: foreignText(payload.subarray(MIN_HELLO_BYTES, softwareEnd), MAX_SOFTWARE_BYTES),
    ...(fields.length > 0 ? { fields } : {}),
  };
}

function safeU64(view: DataView, at: number, offset: number): number {
  const value = view.getBigUint64(at);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
    refuse(offset + at, "bad-value", `HELLO with ${value}, over 2^53`);
  }
  return Number(value);
}

/**
 * How long an end may be silent: what it was told, but never so long that its peer, whose grace
 * time may be shorter than ours, takes it for dead.
 */
export function heartbeatPeriodMs(
  own: { readonly heartbeatMs: number },
  peer: { readonly graceMs: number } | undefined,
): number {
  return peer === undefined || peer.graceMs === 0
    ? own.heartbeatMs
    : Math.min(own.heartbeatMs, peer.graceMs / 3);
}
