/** What `--compress`, `--dedup` and `--delta-cache` mean for a sender. */
import type { Treatment } from "../../replica/primary/compression_policy.ts";
import type { PrimaryCompression } from "../../replica/primary/primary_config.ts";
import type { CompressMode } from "../../control/sender_status.ts";

export interface CompressSettings {
  readonly compress: CompressMode;
  /** Whether unchanged pages are left out; by default if copies are kept anyway. */
  readonly dedup?: boolean;
  /** Memory for copies of the pages sent last. */
  readonly deltaCacheBytes: number;
}

/** The settings in the sender's form; undefined if QEMU's bytes are sent as they are. */
export function compressionOf(settings: CompressSettings): PrimaryCompression | undefined {
  const { compress, deltaCacheBytes: cacheBytes } = settings;
  const delta = compress === "delta" || compress === "auto";
  const dedup = settings.dedup ?? delta;
  const plain: Treatment = { delta: false, pack: false, dedup: false };
  switch (compress) {
    case "none":
      return dedup ? { treatments: [{ ...plain, dedup }], cacheBytes } : undefined;
    case "zstd":
    case "delta":
      return { treatments: [{ delta, pack: true, dedup }], cacheBytes };
    case "auto":
      // Differences without packing are not tried: on no link were they the quickest for long, and
      // meanwhile zstd would get no data to refer to.
      return {
        treatments: [{ delta, pack: true, dedup }, { ...plain, pack: true }, plain],
        cacheBytes,
      };
  }
}
