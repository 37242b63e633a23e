import type { TxnSender } from "../../txn/sender.ts";
import { CompressionPolicy, isWork, type Treatment } from "./compression_policy.ts";
import { DeltaCache } from "./delta_cache.ts";
import type { PrimaryCompression } from "./primary_config.ts";
import { type PrimaryCounters, StreamForwarder } from "./stream_forwarder.ts";

/** How many bytes wait for the peer if the link is the bottleneck. */
const PACK_BACKLOG_BYTES = 256 * 1024;

/**
 * Decides how each transaction is compressed: a checkpoint as {@link CompressionPolicy} chooses; a
 * full stream is packed only if the link cannot keep up.
 */
export class CompressionControl {
  readonly #txn: TxnSender;
  readonly #counters: PrimaryCounters;
  readonly #policy: CompressionPolicy | undefined;
  /** Whether packing is optional. */
  readonly #mayOrMayNotPack: boolean;
  #inFull = false;
  #begunAt = 0;
  #streamBytesBefore = 0;
  /** The copy of the replica's pages, if one is kept. */
  readonly cache: DeltaCache | undefined;
  readonly forwarder: StreamForwarder;

  /** @param compression Nothing is compressed if undefined. */
  constructor(
    compression: PrimaryCompression | undefined,
    txn: TxnSender,
    counters: PrimaryCounters,
  ) {
    this.#txn = txn;
    this.#counters = counters;
    const treatments = compression?.treatments ?? [];
    if (compression !== undefined) {
      this.#policy = new CompressionPolicy(treatments);
      const cached = treatments.some(({ delta, dedup }) => delta || dedup);
      if (cached) this.cache = new DeltaCache(compression.cacheBytes);
    }
    this.#mayOrMayNotPack = new Set(treatments.map(({ pack }) => pack)).size > 1;
    this.forwarder = new StreamForwarder(txn, counters, this.cache);
    // A full stream gets the strongest treatment.
    this.#apply({
      delta: treatments.some(({ delta }) => delta),
      pack: treatments.some(({ pack }) => pack),
      dedup: treatments.some(({ dedup }) => dedup),
    });
  }

  beginFull(): void {
    this.#inFull = true;
  }

  endFull(): void {
    this.#inFull = false;
  }

  /** Notes how much waits for the peer. */
  noteBacklog(pendingBytes: number): void {
    if (!this.#inFull || !this.#mayOrMayNotPack) return;
    this.#txn.packing = pendingBytes > PACK_BACKLOG_BYTES;
  }

  /** A checkpoint begins, with VMSTATE_SEND. @returns Whether there is work to put off. */
  beginCheckpoint(now: number): boolean {
    this.#begunAt = now;
    this.#streamBytesBefore = this.#counters.streamBytes;
    if (this.#policy === undefined) return false;
    const treatment = this.#policy.next();
    this.#apply(treatment);
    return isWork(treatment);
  }

  #apply({ delta, pack, dedup }: Treatment): void {
    this.forwarder.deltas = delta;
    this.forwarder.dedup = dedup;
    this.#txn.packing = pack;
  }

  /** The checkpoint is completely forwarded. */
  sent(transaction: number): void {
    const streamBytes = this.#counters.streamBytes - this.#streamBytesBefore;
    this.#policy?.sent(transaction, streamBytes, this.#begunAt);
  }

  /** A transaction was acknowledged. */
  committed(transaction: number, now: number): void {
    this.#policy?.committed(transaction, now);
  }
}
