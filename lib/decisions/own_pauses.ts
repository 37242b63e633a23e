/**
 * Whether this process has stood still itself (SIGSTOP, a frozen cgroup, a suspended host, swapping)
 * for longer than its peer waits: {@link OwnPauses}. Times are milliseconds of one clock that goes on
 * while the machine is suspended. Where this machine is itself a VM that was paused, its clocks stood
 * too, and nothing here can tell.
 *
 * **Why it matters.** A peer that has waited in vain has gone on alone, and has said what is not here.
 * Its word that it leaves may never have got into a connection that nobody read. So the end of a
 * session behind such a pause proves nothing about the peer's death, and starts no VM. A session that
 * is alive, and has been heard, a grace time after the pause was not given up in it: everything that
 * the peer had written, the connection's end too, was read by then.
 */
export class OwnPauses {
  #tickedAt: number;
  #wokeAt = -Infinity;

  /**
   * @param graceMs How long this end waits; a peer that waits for less says so with its own, and one that
   *   never gives up with 0.
   */
  constructor(now: number, private readonly graceMs: number) {
    this.#tickedAt = now;
  }

  /** To be called all the time, a few times in a grace time at the least. */
  tick(now: number, peerGraceMs = 0): void {
    if (now - this.#tickedAt > this.#patienceMs(peerGraceMs)) this.#wokeAt = now;
    this.#tickedAt = now;
  }

  /** Whether a session that ends now may have been given up while we stood still. */
  isRecent(now: number, peerGraceMs = 0): boolean {
    const patienceMs = this.#patienceMs(peerGraceMs);
    return now - this.#tickedAt > patienceMs || now - this.#wokeAt <= patienceMs;
  }

  #patienceMs(peerGraceMs: number): number {
    return peerGraceMs > 0 ? Math.min(peerGraceMs, this.graceMs) : this.graceMs;
  }
}
