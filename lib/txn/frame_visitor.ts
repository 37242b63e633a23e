import type { FrameHeader } from "./frame_header.ts";

/** Takes frames. The bytes are the caller's and valid during the call only. */
export interface FrameVisitor {
  /** True once nothing more is looked at, whatever comes. */
  readonly isOver: boolean;
  /**
   * A frame's header has come; its payload may come later, and this be said again until it has.
   * Nothing changes by it.
   *
   * @throws {WireError} where no such frame may stand here.
   */
  check(header: FrameHeader, offset: number): void;
  /** A CONTINUE or EVENT frame begins; its payload follows in any number of pieces. */
  streamed(header: FrameHeader, offset: number): void;
  /** `bytes[at, end)` is the next piece of that frame's payload. */
  piece(bytes: Uint8Array, at: number, end: number): void;
  /** Any other frame, whole. */
  frame(header: FrameHeader, payload: Uint8Array, offset: number): void;
}
