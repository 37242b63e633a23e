/**
 * Whether this process has stood still itself (SIGSTOP, a frozen cgroup, a suspended host,
 * swapping) for longer than its peer waits: {@link OwnPauses}. Times are milliseconds of one clock
 * that goes on while the machine is suspended. If this machine is itself a VM that was paused, its
 * clocks stood still too, and the pause cannot be detected here.
 *
 * **Why it matters.** A peer that has waited in vain has gone on alone, and its VM may have sent
 * output that the replica does not know. Its LEAVE may never have got into a connection that nobody
 * read. So the end of a session after such a pause does not prove that the peer is dead, and starts
 * no VM. If a session is alive, and the peer is heard, a grace time after the pause, then the peer
 * has not given it up: everything that the peer had written, including the connection's end, was
 * read by then.
 */
export class OwnPauses {
  #tickedAt: number;
  #wokeAt = -Infinity;

  /**
   * @param graceMs How long this end waits. A peer's own grace may be less; 0 if the peer never
   *   gives up.
   */
  constructor(now: number, private readonly graceMs: number) {
    this.#tickedAt = now;
  }

  /** To be called regularly, at least a few times within a grace time. */
  tick(now: number, peerGraceMs = 0): void {
    if (now - this.#tickedAt > this.#patienceMs(peerGraceMs)) this.#wokeAt = now;
    this.#tickedAt = now;
  }

  /**
   * Whether the peer of a session that ends now may have given it up while this process stood
   * still.
   */
  isRecent(now: number, peerGraceMs = 0): boolean {
    const patienceMs = this.#patienceMs(peerGraceMs);
    return now - this.#tickedAt > patienceMs || now - this.#wokeAt <= patienceMs;
  }

  #patienceMs(peerGraceMs: number): number {
    return peerGraceMs > 0 ? Math.min(peerGraceMs, this.graceMs) : this.graceMs;
  }
}
