import type { FrameHeader } from "./wire.ts";

/** Takes frames. The bytes are the caller's and valid during the call only. */
export interface FrameVisitor {
  /** A CONTINUE or EVENT frame begins; its payload follows in any number of pieces. */
  streamed(header: FrameHeader, offset: number): void;
  /** `bytes[at, end)` is the next piece of that frame's payload. */
  piece(bytes: Uint8Array, at: number, end: number): void;
  /** Any other frame, whole. */
  frame(header: FrameHeader, payload: Uint8Array, offset: number): void;
}
