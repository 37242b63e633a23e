/** What both ends tell of themselves. */
import { anyNumber, anyText, nullable, record } from "./shape.ts";

export interface CommonStatus {
  /** The last transaction that the secondary has; 0 before the first. */
  readonly lastCommitted: number;
  /** Milliseconds since; null before the first. */
  readonly lastCommittedAgeMs: number | null;
  readonly syncs: number;
  readonly syncsPerSecond: number;
  readonly pages: number;
  readonly zeroPages: number;
  /** Bytes of transactions' payload. */
  readonly payloadBytes: number;
  /** Bytes on the connection, framing included. */
  readonly wireBytes: number;
}

export const COMMON_FIELDS = {
  lastCommitted: anyNumber,
  lastCommittedAgeMs: nullable(anyNumber),
  syncs: anyNumber,
  syncsPerSecond: anyNumber,
  pages: anyNumber,
  zeroPages: anyNumber,
  payloadBytes: anyNumber,
  wireBytes: anyNumber,
};

/** What names a VM. */
export interface VmStatus {
  readonly name: string | null;
  readonly uuid: string | null;
}

export const vmShape = record<VmStatus>({ name: nullable(anyText), uuid: nullable(anyText) });
