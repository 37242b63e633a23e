/** What is done to a transaction so that less of it travels. */
export interface Treatment {
  /** Pages are sent as what changed in them. */
  readonly delta: boolean;
  /** Frames are packed with zstd. */
  readonly pack: boolean;
  /** Pages that the receiver has as they are, are left out. */
  readonly dedup: boolean;
}

/** Whether there is anything to do for it that would keep QEMU waiting. */
export function isWork({ delta, pack, dedup }: Treatment): boolean {
  return delta || pack || dedup;
}

/** What is known of one treatment. */
class Trial {
  readonly treatment: Treatment;
  count = 0;
  /** Sums in which the past counts for less and less: of 1, ms, bytes, ms·bytes, bytes². */
  n = 0;
  ms = 0;
  bytes = 0;
  msBytes = 0;
  bytes2 = 0;
  #at = 0;

  constructor(treatment: Treatment) {
    this.treatment = treatment;
  }

  /** @param now Transactions so far, over all treatments: the measure of age. */
  add(ms: number, bytes: number, now: number): void {
    const kept = MEMORY ** (now - this.#at);
    this.#at = now;
    this.count++;
    this.n = this.n * kept + 1;
    this.ms = this.ms * kept + ms;
    this.bytes = this.bytes * kept + bytes;
    this.msBytes = this.msBytes * kept + ms * bytes;
    this.bytes2 = this.bytes2 * kept + bytes * bytes;
  }
}

/** A transaction on its way. */
interface Flying {
  readonly trial: Trial;
  readonly bytes: number;
  readonly begunAt: number;
  readonly counts: boolean;
}

/** Transactions that a treatment gets in a row; the first one may still wait for the one before. */
const BLOCK = 3;
/** Blocks that each treatment gets before they are compared. */
const FIRST_BLOCKS = 3;
/** Transactions between two trials of another treatment than the best. */
const TRIAL_PERIOD = 64;
/** How much worse, and how much rarer tried. */
const HOPELESS_FACTOR = 2;
const HOPELESS_PERIOD = 4;
/** What a result is still worth a transaction later. */
const MEMORY = 0.98;

/**
 * Chooses how the next transaction is treated, by how long those before took to commit.
 *
 * A slow link wants few bytes, a fast one little work, and what the content of a guest's pages is
 * worth to either nobody knows beforehand. So each treatment's time from VMSTATE_SEND, which stops
 * the VM, to the acknowledgement is measured, with link, round trip, both ends' work and all, and made comparable by what a byte
 * more costs; the best one is used, and the others are tried again from time to time.
 */
export class CompressionPolicy {
  readonly #trials: Trial[];
  #best = 0;
  #current = 0;
  #inBlock = 0;
  #sinceTrial = 0;
  #turn = 0;
  #asked = 0;
  /** Transactions on their way: which treatment, how many bytes; undefined where not to be counted. */
  readonly #flying = new Map<number, Flying>();

  /** @param treatments The choices, at least one; the first is used until more is known. */
  constructor(treatments: readonly Treatment[]) {
    this.#trials = treatments.map((treatment) => new Trial(treatment));
  }

  /** The treatment that did best so far. */
  get best(): Treatment {
    return this.#trials[this.#best].treatment;
  }

  /** Decides for the next transaction. */
  next(): Treatment {
    if (this.#trials.length === 1) return this.best;
    this.#asked++;
    if (++this.#inBlock >= BLOCK) {
      this.#inBlock = 0;
      this.#choose();
    }
    return this.#trials[this.#current].treatment;
  }

  /** The transaction is sent. @param streamBytes What QEMU's checkpoint has. */
  sent(transaction: number, streamBytes: number, begunAt: number): void {
    if (this.#trials.length === 1) return;
    const trial = this.#trials[this.#current];
    const counts = this.#inBlock > 0;
    this.#flying.set(transaction, { trial, bytes: streamBytes, begunAt, counts });
  }

  /** It was acknowledged. */
  committed(transaction: number, now: number): void {
    const flying = this.#flying.get(transaction);
    if (flying === undefined) return;
    this.#flying.delete(transaction);
    const { trial, bytes, begunAt, counts } = flying;
    if (counts) trial.add(now - begunAt, bytes, this.#asked);
  }

  #choose(): void {
    const enough = FIRST_BLOCKS * (BLOCK - 1);
    const untried = this.#trials.findIndex(({ count }) => count < enough);
    // What is on its way will be counted; more of it than that tells of no treatment.
    if (untried >= 0 && this.#asked < 4 * enough * this.#trials.length) {
      this.#current = this.#leastTried();
      return;
    }
    this.#best = this.#fastest();
    this.#sinceTrial += BLOCK;
    this.#current = this.#best;
    if (this.#sinceTrial < TRIAL_PERIOD) return;
    this.#sinceTrial = 0;
    this.#turn++;
    const others = this.#trials.length - 1;
    const other = (this.#best + 1 + this.#turn % others) % this.#trials.length;
    const costs = this.#costs();
    const hopeless = costs[other] > HOPELESS_FACTOR * costs[this.#best];
    const round = Math.floor(this.#turn / others);
    if (!hopeless || round % HOPELESS_PERIOD === 0) this.#current = other;
  }

  #leastTried(): number {
    let least = 0;
    for (let i = 1; i < this.#trials.length; i++) {
      if (this.#trials[i].count < this.#trials[least].count) least = i;
    }
    // The same one again while its results are on their way would not be fair to the others.
    return least === this.#current && this.#flying.size > 0
      ? (least + 1) % this.#trials.length
      : least;
  }

  #fastest(): number {
    const costs = this.#costs();
    return costs.indexOf(Math.min(...costs));
  }

  /** What each treatment would take for a transaction of the usual size, in milliseconds. */
  #costs(): number[] {
    let covariance = 0;
    let variance = 0;
    let bytes = 0;
    let n = 0;
    for (const trial of this.#trials) {
      if (trial.n === 0) continue;
      covariance += trial.msBytes - trial.ms * trial.bytes / trial.n;
      variance += trial.bytes2 - trial.bytes * trial.bytes / trial.n;
      bytes += trial.bytes;
      n += trial.n;
    }
    const msPerByte = variance > 0 ? Math.max(0, covariance / variance) : 0;
    return this.#trials.map((trial) => {
      // What was never measured is not chosen.
      if (trial.n === 0) return Infinity;
      return trial.ms / trial.n + msPerByte * (bytes / n - trial.bytes / trial.n);
    });
  }
}
