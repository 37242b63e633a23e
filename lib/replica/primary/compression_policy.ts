/** How a transaction is compressed. */
export interface Treatment {
  /** Pages are sent as differences. */
  readonly delta: boolean;
  /** Frames are packed with zstd. */
  readonly pack: boolean;
  /** Pages that the receiver has already are left out. */
  readonly dedup: boolean;
}

/** Whether it is work that would keep QEMU waiting. */
export function isWork({ delta, pack, dedup }: Treatment): boolean {
  return delta || pack || dedup;
}

/** How many transactions in a row (a block) get the same treatment. */
const BLOCK = 8;
/**
 * How many transactions at the beginning of a block do not count: they wait for those before, and
 * pages sent with another treatment meanwhile are not known to the delta cache, nor to zstd.
 */
const SETTLING = 4;
/**
 * How many blocks each treatment gets in the beginning; the first block runs code for the first
 * time.
 */
const FIRST_BLOCKS = 3;
const COLD_BLOCKS = 1;
/** By how many of its last results a treatment is judged. */
const WINDOW = 12;
/** How many transactions are between trials of other treatments than the best. */
const TRIAL_PERIOD = 96;
/** A treatment this much worse, by this many results, is tried this much less often. */
const HOPELESS_FACTOR = 2;
const HOPELESS_COUNT = 2 * WINDOW;
const HOPELESS_PERIOD = 4;
/**
 * Times to commit that differ by less than this count as equal: they vary that much from one minute
 * to the next.
 */
const EQUAL_FACTOR = 1.1;

/** The last results of a treatment. */
class Trial {
  readonly treatment: Treatment;
  count = 0;
  readonly #ms = new Float64Array(WINDOW);
  readonly #bytes = new Float64Array(WINDOW);

  constructor(treatment: Treatment) {
    this.treatment = treatment;
  }

  add(ms: number, bytes: number): void {
    const i = this.count++ % WINDOW;
    this.#ms[i] = ms;
    this.#bytes[i] = bytes;
  }

  /** The transactions' sizes in bytes, in any order. */
  get sizes(): Float64Array {
    return this.#bytes.subarray(0, this.count);
  }

  /**
   * Estimates the time for a transaction of `bytes`, in milliseconds, from the last ones, corrected
   * for their sizes by the time that each further byte took, which pairs of small and large ones
   * show.
   */
  costMs(bytes: number): number {
    // A treatment that was never measured is not chosen.
    if (this.count === 0) return Infinity;
    const sizes = [...this.sizes];
    const bySize = sizes.map((_, i) => i).sort((a, b) => sizes[a] - sizes[b]);
    const half = bySize.length >>> 1;
    const slopes: number[] = [];
    for (let i = 0; i < half; i++) {
      const [small, large] = [bySize[i], bySize[i + half]];
      if (sizes[small] === sizes[large]) continue;
      slopes.push((this.#ms[large] - this.#ms[small]) / (sizes[large] - sizes[small]));
    }
    // The correction for size is limited: small and large transactions may be from different times,
    // and some had to wait for something else.
    const most = median([...this.#ms.subarray(0, this.count)]) / median(sizes);
    const msPerByte = Math.min(Math.max(0, median(slopes)), most);
    return median(sizes.map((size, i) => {
      const ms = this.#ms[i];
      return Math.min(Math.max(ms + msPerByte * (bytes - size), ms / 2), 2 * ms);
    }));
  }
}

/** A transaction on its way. */
interface Flying {
  readonly trial: Trial;
  readonly bytes: number;
  readonly begunAt: number;
}

/**
 * Chooses how the next transaction is treated, by how long those before took to commit.
 *
 * On a slow link few bytes are best, on a fast link little work, and how well a guest's pages
 * compress is not known beforehand. So each treatment's time is measured from VMSTATE_SEND, which
 * stops the VM, to the acknowledgement, including link, round trip and the work at both ends, and
 * corrected for the transaction's size; the best treatment is used, and the others are tried again
 * from time to time. Of treatments that take about equally long, the one that leaves the fewest
 * bytes is the best.
 *
 * Medians of the last results are compared: a mean is distorted for long by the transactions of a
 * session's beginning, which take twenty times as long as those that follow (measured: a guest that
 * boots, code that runs for the first time).
 */
export class CompressionPolicy {
  readonly #trials: Trial[];
  #best = 0;
  #current = 0;
  #inBlock = -1;
  /** How many blocks there were so far; undefined once every treatment had its first blocks. */
  #firstBlocks: number | undefined = 0;
  #sinceTrial = 0;
  #turn = 0;
  /** The transactions on their way whose times count. */
  readonly #flying = new Map<number, Flying>();

  /**
   * @param treatments The choices, at least one, from the one that leaves the fewest bytes to the
   *   one that leaves the most; the first is used until more is known.
   */
  constructor(treatments: readonly Treatment[]) {
    this.#trials = treatments.map((treatment) => new Trial(treatment));
  }

  /** The best treatment so far. */
  get best(): Treatment {
    return this.#trials[this.#best].treatment;
  }

  /** Chooses the treatment of the next transaction. */
  next(): Treatment {
    if (this.#trials.length === 1) return this.best;
    this.#sinceTrial++;
    if (++this.#inBlock >= BLOCK) this.#choose();
    return this.#trials[this.#current].treatment;
  }

  /** The transaction is sent. @param streamBytes The size of QEMU's checkpoint. */
  sent(transaction: number, streamBytes: number, begunAt: number): void {
    if (this.#trials.length === 1) return;
    const cold = this.#firstBlocks !== undefined &&
      this.#firstBlocks < COLD_BLOCKS * this.#trials.length;
    if (cold || this.#inBlock < SETTLING) return;
    const trial = this.#trials[this.#current];
    this.#flying.set(transaction, { trial, bytes: streamBytes, begunAt });
  }

  /** A transaction was acknowledged. */
  committed(transaction: number, now: number): void {
    const flying = this.#flying.get(transaction);
    if (flying === undefined) return;
    this.#flying.delete(transaction);
    const { trial, bytes, begunAt } = flying;
    trial.add(now - begunAt, bytes);
  }

  /** A block is over: chooses the treatment of the next one. */
  #choose(): void {
    const before = this.#current;
    this.#chooseNext();
    // If the treatment does not change, all transactions count.
    this.#inBlock = this.#current === before ? SETTLING : 0;
  }

  #chooseNext(): void {
    const count = this.#trials.length;
    if (this.#firstBlocks !== undefined) {
      this.#current = ++this.#firstBlocks % count;
      if (this.#firstBlocks < FIRST_BLOCKS * count) return;
      this.#firstBlocks = undefined;
    }
    const costs = this.#costs();
    this.#best = this.#bestOf(costs);
    this.#current = this.#best;
    if (this.#sinceTrial < TRIAL_PERIOD) return;
    this.#sinceTrial = 0;
    this.#turn++;
    const others = count - 1;
    const other = (this.#best + 1 + this.#turn % others) % count;
    const hopeless = this.#trials[other].count >= HOPELESS_COUNT &&
      costs[other] > HOPELESS_FACTOR * costs[this.#best];
    const round = Math.floor(this.#turn / others);
    if (!hopeless || round % HOPELESS_PERIOD === 0) this.#current = other;
  }

  /** The first treatment, in the order of bytes, whose time is about the shortest. */
  #bestOf(costs: readonly number[]): number {
    const most = EQUAL_FACTOR * Math.min(...costs);
    return Math.max(0, costs.findIndex((cost) => cost <= most));
  }

  /** Each treatment's time for a transaction of the usual size, in milliseconds. */
  #costs(): number[] {
    const bytes = median(this.#trials.flatMap(({ sizes }) => [...sizes]));
    return this.#trials.map((trial) => trial.costMs(bytes));
  }
}

/** The median; of an even number of values the upper one, of none 0. */
function median(values: readonly number[]): number {
  const sorted = Float64Array.from(values).sort();
  return sorted.length === 0 ? 0 : sorted[sorted.length >>> 1];
}
