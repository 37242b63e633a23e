/** Recorded migration streams of real QEMUs, for tests. `lib/lab/recording/record.ts` makes them. */

import { createHash } from "node:crypto";
import { zstdDecompressSync } from "node:zlib";
import { UsageError, WireError } from "../../errors.ts";

/** One direction of a recording, as stored. */
export interface StoredBytes {
  /** File name in `fixtures/streams/`. */
  readonly file: string;
  readonly lengthBytes: number;
  /** Of the raw bytes, in hex. */
  readonly sha256: string;
}

/** A run of bytes in one direction; a recording with two directions is a list of these. */
export interface Turn {
  readonly from: "qemu" | "kemari";
  readonly lengthBytes: number;
}

/** What is known about a recording. */
export interface StreamInfo {
  readonly name: string;
  readonly kind: "plain" | "colo";
  /** QEMU's full version. */
  readonly qemu: string;
  readonly about: string;
  readonly commandLine: readonly string[];
  readonly capabilities: readonly string[];
  /** COLO only: checkpoints answered completely. */
  readonly checkpoints?: number;
  readonly fromQemu: StoredBytes;
  /** What the recorder answered, if anything was to be answered. */
  readonly fromKemari?: StoredBytes;
  /** In which order the two directions' bytes went. */
  readonly turns?: readonly Turn[];
}

const FOLDER = new URL("../../../fixtures/streams/", import.meta.url);
let index: readonly StreamInfo[] | undefined;

/** All recordings, in the order of their names. */
export function listStreams(): readonly StreamInfo[] {
  index ??= JSON.parse(Deno.readTextFileSync(new URL("index.json", FOLDER))) as StreamInfo[];
  return index;
}

/** @throws {UsageError} If there is no such recording. */
export function streamInfo(name: string): StreamInfo {
  const info = listStreams().find((candidate) => candidate.name === name);
  if (!info) {
    throw new UsageError(`no recorded stream is called ${name}`, {
      hint: `there are ${listStreams().map((each) => each.name).join(", ")}`,
    });
  }
  return info;
}

/** The bytes that QEMU sent, decompressed and verified. A new array at each call. */
export function loadStream(name: string): Uint8Array {
  return read(streamInfo(name).fromQemu);
}

/** The bytes that QEMU was sent; empty if the recording has one direction only. */
export function loadAnswers(name: string): Uint8Array {
  const stored = streamInfo(name).fromKemari;
  return stored ? read(stored) : new Uint8Array(0);
}

function read(stored: StoredBytes): Uint8Array {
  const packed = Deno.readFileSync(new URL(stored.file, FOLDER));
  const raw = new Uint8Array(zstdDecompressSync(packed));
  const sha256 = createHash("sha256").update(raw).digest("hex");
  if (sha256 !== stored.sha256) {
    throw new WireError("migration", 0, "bad-checksum", `${stored.file} is not what was recorded`);
  }
  return raw;
}
