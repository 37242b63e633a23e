/**
 * For tests: sessions of ft-transaction as text, one frame a line.
 *
 * ```text
 * # What a session is about
 * sender HELLO HEADER PAYLOAD      both in hex
 * receiver ACK HEADER
 * time 1000                        so many milliseconds have passed since the session began
 * ```
 */
import { crc32 } from "node:zlib";
import { concat } from "../../qemu/testing/synthetic_stream.ts";
import { frameName } from "../../txn/frame_rules.ts";
import { HEADER_BYTES, TXN } from "../../txn/wire.ts";
import { ZstdDecompressor } from "../../txn/zstd_context.ts";
import type { Said } from "./loopback.ts";

/** Payloads up to this size are written out where a person reads them. */
const MAX_SHOWN_BYTES = 128;

/** A session's lines, and what it is about. */
export interface Transcript {
  readonly title: string;
  readonly lines: readonly Said[];
}

/** Cuts what was said into frames, which may come in pieces. */
export function framesOf(said: readonly Said[]): Said[] {
  const frames: Said[] = [];
  const pieces: Record<string, Uint8Array> = {};
  for (const each of said) {
    if (each.who === "time") {
      frames.push(each);
      continue;
    }
    let bytes = concat(pieces[each.who] ?? [], each.bytes);
    while (bytes.length >= HEADER_BYTES) {
      const length = HEADER_BYTES + new DataView(bytes.buffer, bytes.byteOffset).getUint32(16);
      if (bytes.length < length) break;
      frames.push({ who: each.who, bytes: bytes.slice(0, length) });
      bytes = bytes.slice(length);
    }
    pieces[each.who] = bytes;
  }
  return frames;
}

/** A line; payloads that are long are given by their length and CRC-32 where it is `short`. */
export function lineOf(said: Said, short = false): string {
  if (said.who === "time") return `time ${said.now}`;
  const { who, bytes } = said;
  const payload = bytes.subarray(HEADER_BYTES);
  const isLong = short && payload.length > MAX_SHOWN_BYTES;
  const sum = crc32(payload).toString(16).padStart(8, "0");
  const content = isLong ? `(${payload.length} bytes, CRC-32 ${sum})` : payload.toHex();
  const header = bytes.subarray(0, HEADER_BYTES).toHex();
  return `${who} ${frameName(bytes[2])} ${header} ${content}`.trimEnd();
}

export function formatTranscripts(transcripts: readonly Transcript[]): string {
  return transcripts.map(({ title, lines }) =>
    [`# ${title}`, ...lines.map((line) => lineOf(line)), ""].join("\n")
  ).join("\n");
}

export function parseTranscripts(text: string): Transcript[] {
  return text.trim().split("\n\n").map((part) => {
    const [title, ...lines] = part.split("\n");
    return { title: title.slice(2), lines: lines.map(parseLine) };
  });
}

function parseLine(line: string): Said {
  const [who, what, header, payload = ""] = line.split(" ");
  if (who === "time") return { who, now: Number(what) };
  return { who: who as "sender" | "receiver", bytes: Uint8Array.fromHex(header + payload) };
}

/** The same lines with the frames in place of what they were packed into: zstd's own versions differ. */
export function unpacked(lines: readonly Said[]): Said[] {
  const zstd = new ZstdDecompressor();
  return lines.flatMap((line): Said[] => {
    if (line.who === "time" || line.bytes[2] !== TXN.PACKED) return [line];
    const { bytes, who } = line;
    const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(HEADER_BYTES);
    const frames = new Uint8Array(length + 1);
    zstd.decompress(bytes, HEADER_BYTES + 4, bytes.length, frames, length);
    return framesOf([{ who, bytes: frames.slice(0, length) }]);
  });
}
