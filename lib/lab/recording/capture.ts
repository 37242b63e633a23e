/** Records what a migrating QEMU sends, answering just enough that it goes on. */

import { TransportError } from "../../errors.ts";
import type { Turn } from "./streams.ts";

const CHECKPOINT_READY = 0;
const CHECKPOINT_REQUEST = 1;
const CHECKPOINT_REPLY = 2;
const VMSTATE_SEND = 3;
const VMSTATE_SIZE = 4;
const VMSTATE_RECEIVED = 5;
const VMSTATE_LOADED = 6;

/** A finished recording, both directions. */
export interface Capture {
  readonly fromQemu: Uint8Array;
  readonly fromKemari: Uint8Array;
  readonly turns: readonly Turn[];
  readonly checkpoints: number;
}

/** What the recorder does with the connection. */
interface CaptureOptions {
  /** `plain` reads to the end. `colo` answers as the secondary would, up to `maxCheckpoints`. */
  readonly kind: "plain" | "colo";
  readonly returnPath: boolean;
  readonly maxCheckpoints: number;
  /** How long the whole recording may take; what has arrived by then is kept. */
  readonly timeoutMs: number;
}

/**
 * Takes one migration connection from `listener` and records it.
 *
 * A QEMU that hangs does not fail the recording: that is what is recorded.
 */
export async function capture(
  listener: Deno.Listener,
  options: CaptureOptions,
): Promise<Capture> {
  const conn = await listener.accept();
  const received: Uint8Array[] = [];
  const sent: Uint8Array[] = [];
  const turns: { from: "qemu" | "kemari"; lengthBytes: number }[] = [];
  const note = (from: "qemu" | "kemari", lengthBytes: number) => {
    const last = turns.at(-1);
    if (last?.from === from) last.lengthBytes += lengthBytes;
    else turns.push({ from, lengthBytes });
  };
  const answer = async (bytes: Uint8Array) => {
    note("kemari", bytes.length);
    sent.push(bytes);
    for (let done = 0; done < bytes.length;) done += await conn.write(bytes.subarray(done));
  };
  const timer = setTimeout(() => conn.close(), options.timeoutMs);
  const chunk = new Uint8Array(1 << 20);
  let pending = new Uint8Array(0);
  let phase: "first" | "running" | "state" | "done" = "first";
  let ponged = !options.returnPath;
  let checkpoints = 0;
  try {
    while (phase !== "done") {
      const length = await conn.read(chunk);
      if (length === null) break;
      note("qemu", length);
      received.push(chunk.slice(0, length));
      pending = concat([pending, received.at(-1)!]);
      if (!ponged) {
        const ping = pingValue(pending);
        if (ping !== undefined) {
          ponged = true;
          await answer(returnPathMessage(2, ping));
        }
      }
      if (phase === "first") {
        if (!endsWithVmdesc(pending)) continue;
        pending = new Uint8Array(0);
        if (options.returnPath) await answer(returnPathMessage(1, 0));
        if (options.kind === "colo") await answer(u32(CHECKPOINT_READY));
        phase = "running";
      } else if (phase === "running" && pending.length >= 4) {
        const message = new DataView(pending.buffer).getUint32(0);
        if (message === CHECKPOINT_REQUEST) {
          pending = pending.slice(4);
          await answer(u32(CHECKPOINT_REPLY));
          phase = "state";
        }
      }
      if (phase === "state" && isWholeCheckpoint(pending)) {
        pending = new Uint8Array(0);
        await answer(u32(VMSTATE_RECEIVED));
        await answer(u32(VMSTATE_LOADED));
        phase = ++checkpoints >= options.maxCheckpoints ? "done" : "running";
      }
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.BadResource || error instanceof Deno.errors.Interrupted)) {
      throw new TransportError("migration socket", "read", String(error), { cause: error });
    }
  } finally {
    clearTimeout(timer);
    try {
      conn.close();
    } catch { /* The timer closed it. */ }
  }
  return { fromQemu: concat(received), fromKemari: concat(sent), turns, checkpoints };
}

/** The value of the PING command in the stream's head, once it has arrived. */
function pingValue(bytes: Uint8Array): number | undefined {
  const ping = [0x08, 0x00, 0x02, 0x00, 0x04];
  for (let at = 8; at + 9 <= Math.min(bytes.length, 4096); at++) {
    if (ping.every((byte, i) => bytes[at + i] === byte)) {
      return new DataView(bytes.buffer).getUint32(at + 5);
    }
  }
  return undefined;
}

/** Whether the last thing in `bytes` is a whole VMDESCRIPTION after an EOF. */
function endsWithVmdesc(bytes: Uint8Array): boolean {
  if (bytes.length < 16 || bytes.at(-1) !== 0x7d) return false;
  const view = new DataView(bytes.buffer);
  for (let at = bytes.length - 6; at > 0; at--) {
    if (
      bytes[at] === 0x06 && bytes[at - 1] === 0 && view.getUint32(at + 1) === bytes.length - at - 5
    ) {
      return true;
    }
  }
  return false;
}

/** Whether `bytes` is VMSTATE_SEND, RAM, VMSTATE_SIZE and as much device state as that says. */
function isWholeCheckpoint(bytes: Uint8Array): boolean {
  if (bytes.length < 20) return false;
  const view = new DataView(bytes.buffer);
  if (view.getUint32(0) !== VMSTATE_SEND) return false;
  for (let at = bytes.length - 13; at >= 4; at--) {
    if (
      view.getUint32(at) === VMSTATE_SIZE &&
      view.getBigUint64(at + 4) === BigInt(bytes.length - at - 12)
    ) return true;
  }
  return false;
}

function returnPathMessage(type: number, value: number): Uint8Array {
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, type);
  view.setUint16(2, 4);
  view.setUint32(4, value);
  return bytes;
}

function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value);
  return bytes;
}

function concat(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
