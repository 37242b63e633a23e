/**
 * What each command is told, and how the words of a command line become values.
 *
 * Addresses stay strings here: lib/host knows which kinds there are.
 */
import { UsageError } from "../errors.ts";

/** How a command speaks on stderr. */
export interface LogOptions {
  readonly logFormat: LogFormat;
  /** Warnings and errors only. */
  readonly quiet: boolean;
  readonly progress: "auto" | "always" | "never";
}

export type LogFormat = "text" | "json";

/** When the primary VM goes on: after the secondary's ACK, or as soon as the checkpoint is read. */
export type CommitMode = "sync" | "async";

/** How both ends tell a dead peer from a quiet one. */
export interface LinkOptions {
  /** Time between two heartbeats, in milliseconds. */
  readonly heartbeatMs: number;
  /** Silence after which the peer counts as lost, in milliseconds. */
  readonly graceMs: number;
  /** Path of the Unix socket that `kemari status` and `kemari failover` talk to. */
  readonly control?: string;
}

/** How less is made of what QEMU sends. */
export interface CompressOptions {
  readonly compress: "none" | "zstd" | "delta" | "auto";
  /** Whether unchanged pages are left out; chosen by `compress` if absent. */
  readonly dedup?: boolean;
  /** Memory for copies of the pages sent last. */
  readonly deltaCacheBytes: number;
}

/** NICs and disks that go through kemari; the names are the same on both sides. */
export interface TapOptions {
  /** `NAME=IN,OUT`, as lib/host reads it. */
  readonly net: readonly string[];
  /** `NAME=PATH,unix:SOCK[,mode=…]`, as lib/host reads it. */
  readonly disk: readonly string[];
}

/** What the primary's end does with its taps. */
export interface PrimaryTapOptions extends TapOptions {
  readonly diskSync: "full" | "none";
  /** Comma-separated; chosen by the disks' mode if absent. */
  readonly syncOn?: string;
  readonly syncMinIntervalMs: number;
  /** The longest time between two synchronizations, in milliseconds. */
  readonly syncIntervalMs: number;
}

export interface SendOptions extends LogOptions, LinkOptions, PrimaryTapOptions, CompressOptions {
  readonly target: string;
  /** QEMU's QMP socket, for what the stream alone cannot ask for. */
  readonly qmp?: string;
  /** `auto` finds out whether a stream ends (a handover) or goes on as COLO. */
  readonly stream: "auto" | "plain" | "colo";
  readonly commit: CommitMode;
  /** Bytes sent and not yet acknowledged, above which QEMU is made to wait. */
  readonly maxInFlightBytes: number;
  readonly sessionName?: string;
  /** What names the VM. */
  readonly vm?: string;
}

export interface RecvOptions extends LogOptions, LinkOptions, TapOptions {
  readonly listen: string;
  readonly onLoss: "wait" | "activate" | "exit";
  /** Shell command that must succeed before activation; `"none"` if the user said so. */
  readonly fence?: string;
  readonly fenceTimeoutMs: number;
  /** Shell command that gets the composed stream on stdin; without it, stdout gets the stream. */
  readonly exec?: string;
  /** Folder for files that hold the replica's RAM, and outlive kemari recv. */
  readonly ramDir?: string;
  /** Whether one other VM may take the place of the one that is kept. */
  readonly replace?: boolean;
  /** Whether room for all of the RAM is made sure of there. */
  readonly ramReserve: "full" | "none";
  /** Shell command of a QEMU that waits with the replica's RAM in its own. */
  readonly standby?: string;
  /** Comma-separated: what is said again on activation. */
  readonly replay: string;
  /** The largest transaction that is buffered, in bytes; half of the free memory by default. */
  readonly maxTransactionBytes?: number;
}

export interface ProtectOptions
  extends LogOptions, LinkOptions, PrimaryTapOptions, CompressOptions {
  readonly target: string;
  readonly qmp: string;
  /** Control socket of the `kemari recv` that has taken the VM over, and is to protect it. */
  readonly via?: string;
  readonly mode: "auto" | "colo" | "snapshot";
  readonly commit: CommitMode;
  readonly maxInFlightBytes: number;
  readonly onSecondaryLoss: "continue" | "stop";
  /** Whether to connect again after the secondary was lost. */
  readonly retry: boolean;
  readonly sessionName?: string;
  /** What names the VM. */
  readonly vm?: string;
}

/** What `kemari protect` tells its guardian. */
export interface GuardOptions extends LogOptions {
  readonly qmp: string;
  readonly action: string;
  /** Temporary folder to remove. */
  readonly folder: string;
}

export interface FailoverOptions extends LogOptions {
  readonly socket: string;
  readonly stale: boolean;
}

export interface StatusOptions extends LogOptions {
  readonly socket: string;
  readonly json: boolean;
  readonly watch: boolean;
}

export interface InspectOptions extends LogOptions {
  /** A path, or `-` for stdin. */
  readonly file: string;
  readonly json: boolean;
  /** Also print every device's fields; JSON has them anyway. */
  readonly fields: boolean;
}

export interface DoctorOptions extends LogOptions {
  readonly qmp?: string;
  /** Path of the QEMU to look at. */
  readonly qemu?: string;
  readonly json: boolean;
}

/** What `kemari drill`, or `kemari bench`, tells its client. */
export interface DrillClientOptions extends LogOptions {
  readonly host: string;
  readonly port: string;
}

export interface DrillOptions extends LogOptions {
  /** With a client outside of the guest, or what the guest says by itself. */
  readonly form: "auto" | "client" | "memory";
  readonly runs: number;
  readonly json: boolean;
  /** How long each run synchronizes before the kill, in seconds. */
  readonly seconds: number;
  /** Silence after which a host counts as lost, in milliseconds. */
  readonly graceMs: number;
  /** The guest's RAM, in MiB. */
  readonly memoryMiB: number;
  /** Comma-separated faults, or `all`. */
  readonly fault: string;
  /** Comma-separated phases in which the primary may die, or `all`. */
  readonly phase: string;
  /** Takeovers back and forth, instead of a fault. */
  readonly pingPong?: number;
  /** Comma-separated device models, or `all`. */
  readonly devices: string;
  readonly diskMode: "replicated" | "shared";
  readonly commit: CommitMode;
  /** Whether the secondary's QEMU waits with the replica's RAM. */
  readonly standby: "warm" | "cold";
  /** Whether each run boots its guest, or all of a device model go on from one boot. */
  readonly boot: "each" | "once";
  /** How many runs there are at a time. */
  readonly jobs: number;
  /** Chooses the moments; a random one if absent. */
  readonly seed?: number;
  /** Leave the working folder behind. */
  readonly keep: boolean;
}

export interface BenchOptions extends LogOptions {
  /** Names of experiments; all of them if empty. */
  readonly names: readonly string[];
  /** Folder for JSON and tables. */
  readonly outFolder?: string;
  /** JSON instead of tables on stdout. */
  readonly json: boolean;
  readonly quick: boolean;
  readonly full: boolean;
  /** Sync links to measure over; each experiment's own choice if absent. */
  readonly links?: readonly ("none" | "1G" | "10G")[];
  /** Rounds, and seconds of each stretch. */
  readonly rounds?: number;
  readonly seconds?: number;
  /** How many checkpoints a soak makes. */
  readonly checkpoints?: number;
  /** iozone's file and its record sizes, in bytes. */
  readonly fileBytes?: number;
  readonly recordBytes?: readonly number[];
}

export interface BenchCompareOptions extends LogOptions {
  /** JSON files or folders of two runs. */
  readonly before: string;
  readonly after: string;
  /** Experiments to compare; all that both have if empty. */
  readonly names: readonly string[];
  readonly json: boolean;
}

const MS_PER_UNIT: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** The longest timer that a runtime keeps: 2³¹−1 ms, 24 days. */
const MAX_DURATION_MS = 2 ** 31 - 1;

/**
 * Reads a duration: `50` and `50ms` are milliseconds, `2s`, `1.5m` and `1h` say their unit.
 *
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(parseDurationMs("2s"), 2000);
 * ```
 *
 * @returns Whole milliseconds, at least 1.
 * @throws {UsageError} Not a duration, shorter than a millisecond, or longer than 24 days.
 */
export function parseDurationMs(text: string): number {
  const parts = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/.exec(text.trim());
  const durationMs = parts ? Math.round(Number(parts[1]) * MS_PER_UNIT[parts[2] ?? "ms"]) : NaN;
  if (durationMs >= 1 && durationMs <= MAX_DURATION_MS) return durationMs;
  throw new UsageError(`"${text}" is not a duration between 1ms and 24 days`, {
    hint: 'Write milliseconds ("50", "50ms"), seconds ("2s"), minutes ("1m") or hours ("1h")',
  });
}

const SIZE_UNITS = "KMGT";

/**
 * Reads a size in bytes, with binary units as QEMU's: `64M` and `64MiB` are 64·2²⁰.
 *
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(parseSizeBytes("64M"), 64 * 1024 * 1024);
 * ```
 *
 * @returns Whole bytes, at least 1.
 * @throws {UsageError} Not a size, zero, or beyond 2⁵³.
 */
export function parseSizeBytes(text: string): number {
  const parts = /^(\d+(?:\.\d+)?)(?:([KMGT])(?:i?B)?|B)?$/i.exec(text.trim());
  const power = parts?.[2] ? SIZE_UNITS.indexOf(parts[2].toUpperCase()) + 1 : 0;
  const sizeBytes = parts ? Math.round(Number(parts[1]) * 1024 ** power) : NaN;
  if (sizeBytes >= 1 && Number.isSafeInteger(sizeBytes)) return sizeBytes;
  throw new UsageError(`"${text}" is not a size`, {
    hint: 'Write bytes ("4096") or a binary unit ("64K", "64M", "2G", "1T")',
  });
}

/**
 * Reads a count: digits only, at least 1.
 *
 * @throws {UsageError} Anything else.
 */
export function parseCount(text: string): number {
  const count = /^\d+$/.test(text.trim()) ? Number(text) : NaN;
  if (count >= 1 && Number.isSafeInteger(count)) return count;
  throw new UsageError(`"${text}" is not a whole number of 1 or more`);
}

/**
 * Reads `--link`: `1G,10G,none`.
 *
 * @throws {UsageError} A rate that is none of these.
 */
export function parseLinkRates(text: string): ("none" | "1G" | "10G")[] {
  return [...new Set(text.split(",").map((word) => word.trim()))].map((word) => {
    if (word === "none" || word === "1G" || word === "10G") return word;
    throw new UsageError(`"${word}" is no link`, { hint: "There are 1G, 10G and none" });
  });
}

/** The most that iozone's file may have: the guest's disk is made for it. */
const MAX_FILE_BYTES = 4 * 2 ** 30;

/**
 * Reads a size that iozone can be given: whole KiB, 4 KiB at least, since direct I/O is in blocks.
 *
 * @throws {UsageError} Another size.
 */
export function parseIoSizeBytes(text: string): number {
  const sizeBytes = parseSizeBytes(text);
  if (sizeBytes % 4096 === 0 && sizeBytes <= MAX_FILE_BYTES) return sizeBytes;
  throw new UsageError(`"${text}" is no size for iozone`, {
    hint: "Write a multiple of 4K, 4G at the most",
  });
}

/**
 * Reads `--record-sizes`: `4K,64K,1M`.
 *
 * @throws {UsageError} A size that iozone cannot be given; iozone's largest record is 16 MiB.
 */
export function parseRecordSizes(text: string): number[] {
  return [...new Set(text.split(",").map(parseIoSizeBytes))].map((sizeBytes) => {
    if (sizeBytes <= 16 * 2 ** 20) return sizeBytes;
    throw new UsageError("iozone's records have 16M at the most");
  });
}

/**
 * Refuses records that the file has no room for.
 *
 * @throws {UsageError}
 */
export function checkSizes(fileBytes?: number, recordBytes: readonly number[] = []): void {
  if (fileBytes === undefined || recordBytes.every((bytes) => bytes <= fileBytes)) return;
  throw new UsageError("--record-sizes: a record is larger than --file-size");
}

/**
 * Refuses timings under which a live peer would be declared dead.
 *
 * @throws {UsageError} The grace time is not longer than the time between two heartbeats.
 */
export function checkLink(link: LinkOptions): void {
  if (link.graceMs > link.heartbeatMs) return;
  throw new UsageError(
    `--grace (${link.graceMs} ms) must be longer than --heartbeat (${link.heartbeatMs} ms)`,
    { hint: "Let several heartbeats fit into the grace time: a late one is not a dead peer" },
  );
}

/**
 * Refuses an activation that could leave two VMs running.
 *
 * @throws {UsageError} `--on-loss activate` without a word on fencing.
 */
export function checkFencing(options: Pick<RecvOptions, "onLoss" | "fence">): void {
  if (options.fence !== undefined && options.fence.trim() === "") {
    throw new UsageError("--fence needs a command", { hint: 'Or say "--fence none" out loud' });
  }
  if (options.onLoss !== "activate" || options.fence !== undefined) return;
  throw new UsageError(
    "--on-loss activate needs --fence: a lost connection does not prove that the primary is dead. " +
      "If only the network failed, both VMs would run with the same addresses and disks (split brain)",
    {
      hint: "Give --fence CMD, a command that makes sure the primary is off (it must exit 0), " +
        'or "--fence none" if something else guarantees it',
    },
  );
}
