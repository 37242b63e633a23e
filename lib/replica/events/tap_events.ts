import { foreignText } from "../../foreign_text.ts";
import { refuse } from "../../txn/wire_fault.ts";
import {
  MAX_EVENT_DATA_BYTES,
  MAX_NET_FRAME_BYTES,
  MAX_TAP_NAME_BYTES,
  MIN_NET_FRAME_BYTES,
} from "../../txn/wire.ts";

/**
 * The events of the event-tap, as they travel in EVENT frames.
 *
 * Wire shape of a payload: `u8 kind, u8 n, n bytes tap name`, then by kind: PACKET: the Ethernet
 * frame. WRITE and COPY: `u64 offset`, the data. ZERO: `u64 offset, u64 length`. DISK: `u64 size in
 * bytes, u8 mode`. COPIED: nothing.
 */
export type TapEvent =
  /** A frame from the guest. */
  | { readonly kind: "packet"; readonly tap: string; readonly frame: Uint8Array }
  /** The guest wrote. */
  | {
    readonly kind: "write";
    readonly tap: string;
    readonly offset: number;
    readonly data: Uint8Array;
  }
  /** The guest trimmed, or wrote zeros. */
  | {
    readonly kind: "zero";
    readonly tap: string;
    readonly offset: number;
    readonly lengthBytes: number;
  }
  /** Part of a disk's first copy; applied like a write, but not a write of the guest. */
  | {
    readonly kind: "copy";
    readonly tap: string;
    readonly offset: number;
    readonly data: Uint8Array;
  }
  /** A disk is part of the session from here on. */
  | {
    readonly kind: "disk";
    readonly tap: string;
    readonly sizeBytes: number;
    readonly mode: DiskMode;
  }
  /** The first copy of a disk is complete with this transaction. */
  | { readonly kind: "copied"; readonly tap: string };

/** Whether each side has a copy of its own, or both open the same image. */
export type DiskMode = "replicated" | "shared";

const KIND = { packet: 1, write: 2, zero: 3, copy: 4, disk: 5, copied: 6 } as const;
const KINDS = Object.keys(KIND) as TapEvent["kind"][];
/** The least and the most bytes behind the tap's name. */
const REST_BYTES: Readonly<Record<TapEvent["kind"], readonly [number, number]>> = {
  packet: [MIN_NET_FRAME_BYTES, MAX_NET_FRAME_BYTES],
  write: [8 + 1, 8 + MAX_EVENT_DATA_BYTES],
  zero: [16, 16],
  copy: [8 + 1, 8 + MAX_EVENT_DATA_BYTES],
  disk: [9, 9],
  copied: [0, 0],
};
const MODES: readonly DiskMode[] = ["replicated", "shared"];

/** A frame that the world sent to the guest: INPUT's `u8 n, n bytes tap name`, then the frame. */
export interface TapInput {
  readonly tap: string;
  readonly frame: Uint8Array;
}

/**
 * Bytes of frames that a NIC's tap copies to the secondary in an epoch. Requests are small; of a
 * bulk transfer, which has more, the beginning serves as well as all of it.
 */
export const INPUT_BYTES_PER_EPOCH = 64 * 1024;

/**
 * What an EVENT counts beside its payload where events are bounded: about what it takes in memory, or
 * small ones would be for free.
 */
export const EVENT_OVERHEAD_BYTES = 128;

/**
 * Encodes an event as pieces of one EVENT payload.
 *
 * @returns The head, and the data itself where there is any: not copied.
 */
export function encodeTapEvent(event: TapEvent): Uint8Array[] {
  const name = new TextEncoder().encode(event.tap);
  const head = new Uint8Array(2 + name.length + fixedBytes(event));
  const view = new DataView(head.buffer);
  head[0] = KIND[event.kind];
  head[1] = name.length;
  head.set(name, 2);
  const at = 2 + name.length;
  switch (event.kind) {
    case "packet":
      return [head, event.frame];
    case "write":
    case "copy":
      view.setBigUint64(at, BigInt(event.offset));
      return [head, event.data];
    case "zero":
      view.setBigUint64(at, BigInt(event.offset));
      view.setBigUint64(at + 8, BigInt(event.lengthBytes));
      return [head];
    case "disk":
      view.setBigUint64(at, BigInt(event.sizeBytes));
      head[at + 8] = MODES.indexOf(event.mode);
      return [head];
    case "copied":
      return [head];
  }
}

/**
 * Encodes an input as pieces of one INPUT payload.
 *
 * @returns The head, and the frame itself: not copied.
 */
export function encodeTapInput({ tap, frame }: TapInput): Uint8Array[] {
  const name = new TextEncoder().encode(tap);
  const head = new Uint8Array(1 + name.length);
  head[0] = name.length;
  head.set(name, 1);
  return [head, frame];
}

/**
 * Decodes one INPUT payload; the frame is a view into it.
 *
 * @param offset Of the payload in the connection, for errors.
 * @throws {WireError}
 */
export function decodeTapInput(payload: Uint8Array, offset: number): TapInput {
  const at = 1 + (payload[0] ?? 0);
  if (at === 1 || at > 1 + MAX_TAP_NAME_BYTES || at > payload.length) {
    refuse(offset, "bad-value", "an INPUT without a tap's name");
  }
  const frame = payload.subarray(at);
  if (frame.length < MIN_NET_FRAME_BYTES || frame.length > MAX_NET_FRAME_BYTES) {
    refuse(offset, "bad-length", `an INPUT with a frame of ${frame.length} bytes`);
  }
  return { tap: decodeTapName(payload.subarray(1, at)), frame };
}

/** A tap's name from the peer, made fit to be shown; valid names do not change by that. */
export function decodeTapName(bytes: Uint8Array): string {
  return foreignText(bytes, MAX_TAP_NAME_BYTES);
}

function fixedBytes(event: TapEvent): number {
  switch (event.kind) {
    case "write":
    case "copy":
      return 8;
    case "zero":
      return 16;
    case "disk":
      return 9;
    default:
      return 0;
  }
}

/**
 * Decodes one EVENT payload. The caller checks whether there is such a tap, and whether the event
 * fits it.
 *
 * @param payload The whole payload; the event's data is a view into it.
 * @param offset Of the payload in the connection, for errors.
 * @throws {WireError} `bad-value`; or `bad-length` if it is too short or too long for its kind.
 */
export function decodeTapEvent(payload: Uint8Array, offset: number): TapEvent {
  const at = 2 + (payload[1] ?? 0);
  if (payload.length < 3 || at === 2 || at > 2 + MAX_TAP_NAME_BYTES || at > payload.length) {
    refuse(offset, "bad-value", "an EVENT without a tap's name");
  }
  const tap = decodeTapName(payload.subarray(2, at));
  const kind = KINDS.find((name) => KIND[name] === payload[0]);
  if (kind === undefined) return refuse(offset, "bad-value", `an EVENT of kind ${payload[0]}`);
  const [least, most] = REST_BYTES[kind];
  const restBytes = payload.length - at;
  if (restBytes < least || restBytes > most) {
    refuse(offset, "bad-length", `a ${kind} of ${tap} with ${restBytes} bytes behind the name`);
  }
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const u64 = (position: number): number => {
    const value = view.getBigUint64(position);
    if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
    return refuse(offset, "bad-value", `a ${kind} of ${tap} with ${value}, not below 2^53`);
  };
  switch (kind) {
    case "packet":
      return { kind, tap, frame: payload.subarray(at) };
    case "write":
    case "copy":
      return { kind, tap, offset: u64(at), data: payload.subarray(at + 8) };
    case "zero": {
      const lengthBytes = u64(at + 8);
      // Storage need not have a meaning for that, nor for a write without data.
      if (lengthBytes === 0) refuse(offset, "bad-value", `a zero of ${tap} that zeroes nothing`);
      return { kind, tap, offset: u64(at), lengthBytes };
    }
    case "disk": {
      const mode = MODES[payload[at + 8]];
      if (mode !== undefined) return { kind, tap, sizeBytes: u64(at), mode };
      return refuse(offset, "bad-value", `a disk of ${tap} with mode ${payload[at + 8]}`);
    }
    case "copied":
      return { kind, tap };
  }
}
