/** The part of a status that both ends have. */
import { anyBoolean, anyNumber, anyText, nullable, oneOf, optional, record } from "./shape.ts";

export interface CommonStatus {
  /** The last transaction that the secondary has; 0 before the first. */
  readonly lastCommitted: number;
  /** Milliseconds since then; null before the first. */
  readonly lastCommittedAgeMs: number | null;
  readonly syncs: number;
  readonly syncsPerSecond: number;
  readonly pages: number;
  readonly zeroPages: number;
  /** Bytes of transactions' payload. */
  readonly payloadBytes: number;
  /** Bytes on the connection, framing included. */
  readonly wireBytes: number;
  /** How the connection is protected; null without a connection. */
  readonly encryption?: EncryptionStatus | null;
}

/** How a connection is protected. */
export interface EncryptionStatus {
  /** `ssh`: by the ssh that it goes through. */
  readonly kind: "none" | "tls" | "ssh";
  /** The name of the peer's key or certificate; null before the peer has proven it. */
  readonly peer: string | null;
  /** The cipher, by its TLS name. */
  readonly cipher: string | null;
  /** Whether the kernel encrypts what this end sends. */
  readonly inKernel: boolean;
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
  encryption: optional(nullable(record<EncryptionStatus>({
    kind: oneOf("none", "tls", "ssh"),
    peer: nullable(anyText),
    cipher: nullable(anyText),
    inKernel: anyBoolean,
  }))),
};

/** A VM's names. */
export interface VmStatus {
  readonly name: string | null;
  readonly uuid: string | null;
}

export const vmShape = record<VmStatus>({ name: nullable(anyText), uuid: nullable(anyText) });
