/**
 * The pending requests for a failover: each learns whether the guest's state has been handed to
 * QEMU.
 */
export class FailoverRequests {
  #waiting: { resolve(): void; reject(error: unknown): void }[] = [];

  /** Adds a request. Resolves or rejects with the others. */
  wait(): Promise<void> {
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  /** The state has been handed over. @returns Whether there were requests. */
  resolve(): boolean {
    const waiting = this.#take();
    for (const { resolve } of waiting) resolve();
    return waiting.length > 0;
  }

  /** The state has not been handed over, for this reason. @returns Whether there were requests. */
  reject(error: unknown): boolean {
    const waiting = this.#take();
    for (const { reject } of waiting) reject(error);
    return waiting.length > 0;
  }

  #take() {
    const waiting = this.#waiting;
    this.#waiting = [];
    return waiting;
  }
}
