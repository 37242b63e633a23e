import { foreignText } from "../foreign_text.ts";
import { MAX_LEAVE_BYTES } from "./wire.ts";
import { refuse } from "./wire_fault.ts";

/** What becomes of the VM when its sender ends the session on purpose. */
export type LeaveReason =
  /** It stays at the primary, unprotected: it runs there, or somebody there has stopped it. */
  | "goes-on"
  /** It was shut down, and runs nowhere. */
  | "vm-ended";

/** The reasons as they are written in LEAVE. */
const CODES: Readonly<Record<LeaveReason, number>> = { "goes-on": 0, "vm-ended": 1 };

/** What LEAVE says. */
export interface Leave {
  readonly reason: LeaveReason;
  /** For people; may be empty. */
  readonly text: string;
}

/** LEAVE's payload: `u8 reason, text`, of which no more is kept than may be sent. */
export function encodeLeave({ reason, text }: Leave): Uint8Array {
  const words = new TextEncoder().encode(text).subarray(0, MAX_LEAVE_BYTES - 1);
  return Uint8Array.of(CODES[reason], ...words);
}

/**
 * Decodes LEAVE's payload. An empty one, which is an older sender's, says that the VM goes on.
 *
 * @throws {WireError} `bad-value` for a reason that is not known: nothing may be guessed of a VM.
 */
export function decodeLeave(payload: Uint8Array, offset: number): Leave {
  if (payload.length === 0) return { reason: "goes-on", text: "" };
  const reason = (Object.keys(CODES) as LeaveReason[]).find((name) => CODES[name] === payload[0]);
  if (reason === undefined) refuse(offset, "bad-value", `a LEAVE for reason ${payload[0]}`);
  return { reason, text: foreignText(payload.subarray(1)) };
}
