import { COLO_MESSAGE, RETURN_PATH } from "./wire.ts";

/** A COLO message to QEMU: `u32`. */
export function encodeColoMessage(message: keyof typeof COLO_MESSAGE): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, COLO_MESSAGE[message]);
  return bytes;
}

/** The answer to PING: `u16 type, u16 length, u32` the value that PING carried. */
export function encodePong(ping: Uint8Array): Uint8Array {
  return encodeReturnPath(RETURN_PATH.MIG_RP_MSG_PONG, ping);
}

/**
 * The end of the return path; 0 tells QEMU that the load succeeded, any other value that it failed.
 */
export function encodeShut(status: number): Uint8Array {
  const data = new Uint8Array(4);
  new DataView(data.buffer).setUint32(0, status);
  return encodeReturnPath(RETURN_PATH.MIG_RP_MSG_SHUT, data);
}

function encodeReturnPath(type: number, data: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(4 + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, type);
  view.setUint16(2, data.length);
  bytes.set(data, 4);
  return bytes;
}
