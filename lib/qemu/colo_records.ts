/**
 * COLO's messages from QEMU, between checkpoints and inside them.
 *
 * @see QEMU migration/colo.c, colo_do_checkpoint_transaction()
 */
import { WireError } from "../errors.ts";
import { u32 } from "./section_records.ts";
import { COLO_MESSAGE, LIMITS, nameOf } from "./wire.ts";

/** A COLO message and one past it. */
interface ColoRecord {
  readonly message: number;
  /** VMSTATE_SIZE only: bytes of device state that follow. */
  readonly sizeBytes?: number;
  readonly next: number;
}

/**
 * The `u32` that leads to a checkpoint: CHECKPOINT_REQUEST, then VMSTATE_SEND.
 *
 * @param requested Whether CHECKPOINT_REQUEST has passed since the last checkpoint.
 * @returns `undefined` if fewer than 4 bytes are there.
 * @throws {WireError} `bad-value` for any other message, `bad-order` for one out of turn.
 */
export function decodeCheckpointMessage(
  bytes: Uint8Array,
  at: number,
  end: number,
  base: number,
  requested: boolean,
): ColoRecord | undefined {
  if (end - at < 4) return undefined;
  const message = u32(bytes, at);
  const name = nameOf(COLO_MESSAGE, message);
  if (message !== COLO_MESSAGE.CHECKPOINT_REQUEST && message !== COLO_MESSAGE.VMSTATE_SEND) {
    throw new WireError(
      "colo",
      base + at,
      "bad-value",
      `message ${message} (${name}) where QEMU asks for a checkpoint`,
    );
  }
  if (requested !== (message === COLO_MESSAGE.VMSTATE_SEND)) {
    throw new WireError(
      "colo",
      base + at,
      "bad-order",
      requested ? "CHECKPOINT_REQUEST twice" : "VMSTATE_SEND without CHECKPOINT_REQUEST",
    );
  }
  return { message, next: at + 4 };
}

/**
 * `u32` VMSTATE_SIZE, `u64` bytes of device state, which follow.
 *
 * @returns `undefined` if fewer than 12 bytes are there.
 * @throws {WireError} `bad-order` for another message, `too-large` for a size that is not accepted.
 */
export function decodeVmstateSize(
  bytes: Uint8Array,
  at: number,
  end: number,
  base: number,
): ColoRecord & { readonly sizeBytes: number } | undefined {
  if (end - at < 12) return undefined;
  const message = u32(bytes, at);
  const sizeBytes = u32(bytes, at + 4) * 0x1_0000_0000 + u32(bytes, at + 8);
  if (message !== COLO_MESSAGE.VMSTATE_SIZE) {
    throw new WireError(
      "colo",
      base + at,
      "bad-order",
      `message ${message} (${nameOf(COLO_MESSAGE, message)}) where VMSTATE_SIZE belongs`,
    );
  }
  if (sizeBytes === 0 || sizeBytes > LIMITS.deviceStateBytes) {
    throw new WireError(
      "colo",
      base + at + 4,
      "too-large",
      `device state of ${
        BigInt(u32(bytes, at + 4)) << 32n | BigInt(u32(bytes, at + 8))
      } bytes; 1 to ` +
        `${LIMITS.deviceStateBytes} are accepted`,
    );
  }
  return { message, sizeBytes, next: at + 12 };
}
