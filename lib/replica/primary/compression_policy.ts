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

/** Transactions that a treatment gets in a row. */
const BLOCK = 8;
/**
 * The first of them that say nothing of it: they wait for those before, and pages that went out
 * otherwise meanwhile are not known to the delta cache, nor to zstd.
 */
const SETTLING = 4;
/** Blocks that each treatment gets in the beginning; the first one runs code for the first time. */
const FIRST_BLOCKS = 3;
const COLD_BLOCKS = 1;
/** Results that a treatment is judged by, the last ones. */
const WINDOW = 12;
/** Transactions between two trials of another treatment than the best. */
const TRIAL_PERIOD = 96;
/** How much worse, known from how many results, and how much rarer tried. */
const HOPELESS_FACTOR = 2;
const HOPELESS_COUNT = 2 * WINDOW;
const HOPELESS_PERIOD = 4;
/** Times to commit this much apart count as equal: that much they differ from one minute to the next. */
const EQUAL_FACTOR = 1.1;

/** What is known of one treatment: its last transactions. */
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

  /** Sizes in bytes, in no order. */
  get sizes(): Float64Array {
    return this.#bytes.subarray(0, this.count);
  }

  /**
   * What it takes for a transaction of `bytes`, in milliseconds: by its last ones, made comparable by
   * what a byte more took, in pairs of small and large ones.
   */
  costMs(bytes: number): number {
    // What was never measured is not chosen.
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
    // What size explains is limited: small and large ones may be of different times, and some had to
    // wait for something else.
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
 * A slow link wants few bytes, a fast one little work, and what the content of a guest's pages is
 * worth to either nobody knows beforehand. So each treatment's time from VMSTATE_SEND, which stops
 * the VM, to the acknowledgement is measured, with link, round trip, both ends' work and all, and
 * made comparable by what a byte more costs; the best one is used, and the others are tried again
 * from time to time. Of those that take about equally long the one that leaves the fewest bytes is
 * the best.
 *
 * Medians of the last results are compared: a mean does not get over the transactions of a session's
 * beginning, which take twenty times as long as those that follow (measured: a guest that boots, code
 * that runs for the first time).
 */
export class CompressionPolicy {
  readonly #trials: Trial[];
  #best = 0;
  #current = 0;
  #inBlock = -1;
  /** Blocks so far, or undefined once every treatment had its first ones. */
  #firstBlocks: number | undefined = 0;
  #sinceTrial = 0;
  #turn = 0;
  /** Those transactions on their way that count. */
  readonly #flying = new Map<number, Flying>();

  /**
   * @param treatments The choices, at least one, from the one that leaves the fewest bytes to the one
   *   that leaves the most; the first is used until more is known.
   */
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
    this.#sinceTrial++;
    if (++this.#inBlock >= BLOCK) this.#choose();
    return this.#trials[this.#current].treatment;
  }

  /** The transaction is sent. @param streamBytes What QEMU's checkpoint has. */
  sent(transaction: number, streamBytes: number, begunAt: number): void {
    if (this.#trials.length === 1) return;
    const cold = this.#firstBlocks !== undefined &&
      this.#firstBlocks < COLD_BLOCKS * this.#trials.length;
    if (cold || this.#inBlock < SETTLING) return;
    const trial = this.#trials[this.#current];
    this.#flying.set(transaction, { trial, bytes: streamBytes, begunAt });
  }

  /** It was acknowledged. */
  committed(transaction: number, now: number): void {
    const flying = this.#flying.get(transaction);
    if (flying === undefined) return;
    this.#flying.delete(transaction);
    const { trial, bytes, begunAt } = flying;
    trial.add(now - begunAt, bytes);
  }

  /** A block is over: decides for the next one. */
  #choose(): void {
    const before = this.#current;
    this.#chooseNext();
    // What goes on as before has nothing to wait for.
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

  /** The first, of fewest bytes, whose time is about the shortest. */
  #bestOf(costs: readonly number[]): number {
    const most = EQUAL_FACTOR * Math.min(...costs);
    return Math.max(0, costs.findIndex((cost) => cost <= most));
  }

  /** What each treatment would take for a transaction of the usual size, in milliseconds. */
  #costs(): number[] {
    const bytes = median(this.#trials.flatMap(({ sizes }) => [...sizes]));
    return this.#trials.map((trial) => trial.costMs(bytes));
  }
}

/** The upper one of an even number; 0 of none. */
function median(values: readonly number[]): number {
  const sorted = Float64Array.from(values).sort();
  return sorted.length === 0 ? 0 : sorted[sorted.length >>> 1];
}
