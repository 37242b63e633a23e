import type { TxnSender } from "../txn/sender.ts";
import { CompressionPolicy } from "./compression_policy.ts";
import { DeltaCache } from "./delta_cache.ts";
import type { PrimaryCompression } from "./primary_options.ts";
import { type PrimaryCounters, StreamForwarder } from "./stream_forwarder.ts";

/** How many bytes wait when it is the link that everything waits for. */
const PACK_BACKLOG_BYTES = 256 * 1024;

/**
 * Says what is done to each transaction: to a checkpoint what {@link CompressionPolicy} chooses; a
 * full stream is packed where the link cannot keep up, and only there.
 */
export class CompressionControl {
  readonly #txn: TxnSender;
  readonly #counters: PrimaryCounters;
  readonly #policy: CompressionPolicy | undefined;
  /** Whether there is a choice between packing and not. */
  readonly #mayOrMayNotPack: boolean;
  #inFull = false;
  #streamBytesBefore = 0;
  /** The copy of what the replica has, where one is kept. */
  readonly cache: DeltaCache | undefined;
  readonly forwarder: StreamForwarder;

  /** @param compression Nothing is made less without it. */
  constructor(
    compression: PrimaryCompression | undefined,
    txn: TxnSender,
    counters: PrimaryCounters,
  ) {
    this.#txn = txn;
    this.#counters = counters;
    const treatments = compression?.treatments ?? [];
    const deltas = treatments.some(({ delta }) => delta);
    if (compression !== undefined) {
      this.#policy = new CompressionPolicy(treatments);
      if (deltas || compression.dedup) this.cache = new DeltaCache(compression.cacheBytes);
    }
    this.#mayOrMayNotPack = new Set(treatments.map(({ pack }) => pack)).size > 1;
    const options = this.cache && { cache: this.cache, dedup: compression!.dedup };
    this.forwarder = new StreamForwarder(txn, counters, options);
    this.forwarder.deltas = deltas;
    txn.packing = treatments.some(({ pack }) => pack);
  }

  beginFull(): void {
    this.#inFull = true;
  }

  endFull(): void {
    this.#inFull = false;
  }

  /** Says how much waits for the peer. */
  noteBacklog(pendingBytes: number): void {
    if (!this.#inFull || !this.#mayOrMayNotPack) return;
    this.#txn.packing = pendingBytes > PACK_BACKLOG_BYTES;
  }

  beginCheckpoint(): void {
    this.#streamBytesBefore = this.#counters.streamBytes;
    if (this.#policy === undefined) return;
    const { delta, pack } = this.#policy.next();
    this.forwarder.deltas = delta;
    this.#txn.packing = pack;
  }

  /** The checkpoint is forwarded, whole. */
  sent(transaction: number): void {
    this.#policy?.sent(transaction, this.#counters.streamBytes - this.#streamBytesBefore);
  }

  /** It was acknowledged, so long after it had been read. */
  committed(transaction: number, tookMs: number): void {
    this.#policy?.committed(transaction, tookMs);
  }
}
