import { foreignText } from "../foreign_text.ts";
import { WireError } from "../errors.ts";
import { encodeHeader } from "./frame_header.ts";
import { MAX_NACK_TEXT_BYTES, NACK_REASON, type NackReason, TXN } from "./wire.ts";

/** What a user can do about a refusal, by its reason. */
const HINTS: Readonly<Record<string, string>> = {
  "too-large": "for a larger transaction raise recv's --max-transaction",
  silence: "see kemari status there before the VM goes on here: that end may have taken over",
  "taken-over": "the VM must not run here any more: end this QEMU",
  "other-vm":
    "send to the kemari recv of this VM; or, if it is the same one, name it alike with --vm; " +
    "or start that recv with --replace: what it keeps is then overwritten",
  "same-image": "give each side an image of its own, or write mode=shared at both ends",
  storage: "free space there, or mend its storage; nothing that was acknowledged is lost",
};

/** Reasons that callers tell from others. */
const FAULTS = [
  ...["busy", "taken-over", "storage", "silence", "activating", "stopping"] as const,
  ...["other-vm", "same-image"] as const,
];

function isFault(name: string): name is typeof FAULTS[number] {
  return (FAULTS as readonly string[]).includes(name);
}

/** NACK's payload: `u16 reason, text`, of which no more is kept than may be sent. */
export function encodeRefusal(reason: NackReason, text: string): Uint8Array {
  const body = new TextEncoder().encode(text).subarray(0, MAX_NACK_TEXT_BYTES);
  const payload = new Uint8Array(2 + body.length);
  payload[0] = NACK_REASON[reason] >> 8;
  payload[1] = NACK_REASON[reason] & 0xff;
  payload.set(body, 2);
  return payload;
}

/** All that an end says which refuses a connection without beginning a session: one NACK. */
export function encodeConnectionRefusal(reason: NackReason, text: string): Uint8Array[] {
  const payload = encodeRefusal(reason, text);
  const lengthBytes = payload.length;
  return [
    encodeHeader({ command: TXN.NACK, flags: 0, sequence: 0, transaction: 0, lengthBytes }),
    payload,
  ];
}

/**
 * The error that a NACK is to the end which reads it.
 *
 * @param transaction What was refused; 0 for the connection.
 * @returns One whose fault is the reason, where callers tell it from others, or else `refused`.
 */
export function decodeRefusal(payload: Uint8Array, transaction: number, offset: number): WireError {
  const code = payload.length >= 2 ? payload[0] << 8 | payload[1] : 0;
  const name = Object.entries(NACK_REASON).find(([, value]) => value === code)?.[0] ?? "unknown";
  const text = foreignText(payload.subarray(2));
  const what = transaction === 0 ? "the connection" : `transaction ${transaction}`;
  return new WireError(
    "transaction",
    offset,
    isFault(name) ? name : "refused",
    `the receiver refused ${what}: ${text || name}`,
    { hint: HINTS[name] },
  );
}
