/** `--compress`, `--dedup` and `--delta-cache`: what they mean for a sender. */
import type { Treatment } from "../../replica/primary/compression_policy.ts";
import type { PrimaryCompression } from "../../replica/primary/primary_config.ts";
import type { CompressMode } from "../../control/sender_status.ts";

export interface CompressSettings {
  readonly compress: CompressMode;
  /** Whether unchanged pages are left out; by default where copies are kept anyway. */
  readonly dedup?: boolean;
  /** Memory for copies of the pages sent last. */
  readonly deltaCacheBytes: number;
}

/** The sender's share of it; undefined where QEMU's bytes go out as they are. */
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
      // Differences that are not packed are not among them: they were the quickest on no link for
      // long, and while they are tried zstd sees nothing to refer to.
      return {
        treatments: [{ delta, pack: true, dedup }, { ...plain, pack: true }, plain],
        cacheBytes,
      };
  }
}
