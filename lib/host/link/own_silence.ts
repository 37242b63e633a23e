/** For so long after we stood still, an end of the connection may be because of that. */
const CONSEQUENCES_MS = 10_000;

/**
 * Notices that this process stood still (SIGSTOP, a frozen cgroup, a suspended host, one that swaps), and
 * was silent towards its peer meanwhile.
 */
export class OwnSilence {
  #tickedAt: number;
  #endedAt = -Infinity;

  /** @param now Tells the time, in milliseconds, by a clock that goes on while the machine is suspended. */
  constructor(private readonly now: () => number) {
    this.#tickedAt = now();
  }

  /**
   * To be called often.
   *
   * @param ownGraceMs How long the peer may be silent.
   * @param peerGraceMs How long it lets us be; 0 if it has not said so.
   * @returns Whether we stood still: what the peer said meanwhile lies in the socket.
   */
  tick(ownGraceMs: number, peerGraceMs: number): boolean {
    const now = this.now();
    const silentMs = now - this.#tickedAt;
    if (isLong(silentMs, peerGraceMs)) this.#endedAt = now;
    this.#tickedAt = now;
    return silentMs > ownGraceMs / 2;
  }

  /** Whether the peer may take us, or have taken us, for dead. */
  isSuspicious(peerGraceMs: number): boolean {
    const now = this.now();
    return isLong(now - this.#tickedAt, peerGraceMs) || now - this.#endedAt < CONSEQUENCES_MS;
  }
}

/** Half the peer's patience: what it counts began before our last word was said. */
function isLong(silentMs: number, peerGraceMs: number): boolean {
  return peerGraceMs > 0 && silentMs > peerGraceMs / 2;
}
