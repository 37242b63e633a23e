import { encodeFrameHeader, FRAME_HEADER_BYTES } from "../stream_frame.ts";

/** One frame with its header, in memory of its own. */
export function encodeFrame(frame: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(FRAME_HEADER_BYTES + frame.length);
  encodeFrameHeader(bytes, 0, frame.length);
  bytes.set(frame, FRAME_HEADER_BYTES);
  return bytes;
}
