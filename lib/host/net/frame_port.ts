/** Something that takes and gives Ethernet frames without ever blocking. */
export interface FramePort {
  /** What to wait on. */
  readonly fd: number;
  /** As the user wrote it. */
  readonly name: string;

  /**
   * Sends one frame. The bytes may change after the call.
   *
   * @returns False if it cannot be taken now; it is not sent then, not even in part.
   * @throws {TransportError} if the port is gone.
   */
  send(frame: Uint8Array): boolean;

  /**
   * Pushes out what `send` has taken.
   *
   * @returns True when nothing is left.
   * @throws {TransportError} if the port is gone.
   */
  flush(): boolean;

  /**
   * Reads what is there, at most about `budgetBytes`.
   *
   * @param onFrame Gets each frame: a view that is valid during the call.
   * @returns `more` if there may be more right now, `empty` if there is nothing left, `end` if the
   *   other side has closed.
   * @throws {TransportError} if the port is gone.
   * @throws {WireError} if the bytes are at fault.
   */
  receive(budgetBytes: number, onFrame: (frame: Uint8Array) => void): "more" | "empty" | "end";

  /** Frames that the other side will never take, however often they are sent. */
  readonly refusedFrames: number;

  /** How long to wait before `send` is tried again where `fd` cannot tell; `undefined`: it can. */
  readonly retryMs: number | undefined;

  /** Gives the descriptor back. */
  close(): void;
}
