/** Something that takes and gives Ethernet frames without ever blocking. */
export interface FramePort {
  /** The descriptor to wait for. */
  readonly fd: number;
  /** The port's name as the user wrote it. */
  readonly name: string;

  /**
   * Sends one frame. The bytes may change after the call.
   *
   * @returns False if the port cannot take the frame now; then nothing of it is sent.
   * @throws {TransportError} if the port is gone.
   */
  send(frame: Uint8Array): boolean;

  /**
   * Writes what `send` has taken.
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

  /** How many frames were dropped because the other side would never take them. */
  readonly refusedFrames: number;

  /**
   * How long to wait before `send` is tried again, for a port whose `fd` does not tell; `undefined`
   * if it tells.
   */
  readonly retryMs: number | undefined;

  /** Closes the descriptor. */
  close(): void;
}
