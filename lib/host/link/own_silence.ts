/** How long after a standstill of this process an end of the connection may be its consequence. */
const CONSEQUENCES_MS = 10_000;

/**
 * Notices that this process stood still (SIGSTOP, a frozen cgroup, a suspended host, one that
 * swaps), and sent nothing to its peer meanwhile.
 */
export class OwnSilence {
  #tickedAt: number;
  #endedAt = -Infinity;

  /** @param now A clock that goes on while the machine is suspended, in milliseconds. */
  constructor(private readonly now: () => number) {
    this.#tickedAt = now();
  }

  /**
   * To be called often.
   *
   * @param ownGraceMs How long this end lets the peer be silent.
   * @param peerGraceMs How long the peer lets this end be silent; 0 if it has not said so.
   * @returns Whether this process stood still: what the peer sent meanwhile is in the socket.
   */
  tick(ownGraceMs: number, peerGraceMs: number): boolean {
    const now = this.now();
    const silentMs = now - this.#tickedAt;
    if (isLong(silentMs, peerGraceMs)) this.#endedAt = now;
    this.#tickedAt = now;
    return silentMs > ownGraceMs / 2;
  }

  /** Whether the peer may take this end for dead, or has done so. */
  isSuspicious(peerGraceMs: number): boolean {
    const now = this.now();
    return isLong(now - this.#tickedAt, peerGraceMs) || now - this.#endedAt < CONSEQUENCES_MS;
  }
}

/** Half the peer's patience: the peer's count began before our last message was sent. */
function isLong(silentMs: number, peerGraceMs: number): boolean {
  return peerGraceMs > 0 && silentMs > peerGraceMs / 2;
}
