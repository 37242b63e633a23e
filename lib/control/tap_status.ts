/** What an end's taps tell of themselves. */
import {
  type LatencySummary,
  latencySummary,
  type RecentDurations,
  recentDurations,
} from "./recent_durations.ts";
import { anyBoolean, anyNumber, anyText, listOf, mapOf, nullable, oneOf, record } from "./shape.ts";

/** Where the time goes that output of one class is held, in ms. */
export interface EventLatencySummary {
  /** First event of an epoch → a synchronization is asked for, or begins by itself. */
  readonly trigger: LatencySummary;
  /** That → the secondary has acknowledged it. */
  readonly commit: LatencySummary;
  /** That → everything of the epoch is out, or written. */
  readonly release: LatencySummary;
}

/** What went through, since the tap was opened. */
export interface NetTapCounters {
  /** Waiting for their epoch now. */
  readonly heldFrames: number;
  readonly heldBytes: number;
  /** Waiting at all: held ones, and those that OUT has not taken yet. */
  readonly queuedFrames: number;
  readonly queuedBytes: number;
  /** Guest → world without being held. */
  readonly passedOut: number;
  /** Guest → world after their epoch was released. */
  readonly releasedFrames: number;
  /** World → guest. */
  readonly passedIn: number;
  /** World → guest while no QEMU was connected, or none that ran: as with a machine that is off. */
  readonly droppedNoGuest: number;
  /** Guest → world: OUT itself finds them at fault, and would for ever. */
  readonly droppedByOut: number;
  /** QEMUs turned away because one was connected. */
  readonly refusedGuests: number;
  readonly guestConnected: boolean;
  readonly outConnected: boolean;
  /** From being read out of QEMU's socket to having left, of released frames. */
  readonly hold: LatencySummary;
}

/** How far a disk has come, in bytes of it. */
export interface ResyncProgress {
  /** Compared, or copied without; the whole disk when it is done. */
  readonly doneBytes: number;
  /** Of those, found equal. */
  readonly equalBytes: number;
  /** Of those, sent. */
  readonly sentBytes: number;
}

/** One disk in `kemari status`. */
export interface DiskStatus {
  readonly name: string;
  readonly mode: "replicated" | "shared";
  readonly sizeBytes: number;
  /** Share of the secondary's copy that is in step, 0 to 1. */
  readonly copied: number;
  /** How it got there in this session, in bytes of the disk. */
  readonly resync: ResyncProgress;
  readonly heldBytes: number;
  readonly unreleasedWrites: number;
  /** Above so many bytes held, requests of the guest wait for bursts. */
  readonly limitBytes: number;
  /** How often and how long they have waited. */
  readonly throttled: number;
  readonly throttledMs: number;
  /** Why the image does not take writes that it should have by now; null where it does. */
  readonly stuck: string | null;
  /** Requests that the image's storage has not answered yet. */
  readonly waiting: number;
  /** For how long it has answered none of them; 0 where there is none. */
  readonly stalledMs: number;
}

/** Why output is held. */
export type HeldClass = "net" | "disk";

export interface TapStatus {
  readonly nets: Readonly<Record<string, NetTapCounters>>;
  readonly disks: readonly DiskStatus[];
  /** First write of an epoch to its release, ms. */
  readonly diskHold: LatencySummary;
  /** Where the time goes that output is held, by class. */
  readonly latency: Readonly<Record<HeldClass, EventLatencySummary>>;
}

/** How long output was held lately. */
export interface RecentHolds {
  /** Each NIC's frames, by its name. */
  readonly netHold: Readonly<Record<string, RecentDurations>>;
  /** First write of an epoch to its release, of all disks. */
  readonly diskHold: RecentDurations;
}

const eventLatency = record<EventLatencySummary>({
  trigger: latencySummary,
  commit: latencySummary,
  release: latencySummary,
});

const netTapCounters = record<NetTapCounters>({
  heldFrames: anyNumber,
  heldBytes: anyNumber,
  queuedFrames: anyNumber,
  queuedBytes: anyNumber,
  passedOut: anyNumber,
  releasedFrames: anyNumber,
  passedIn: anyNumber,
  droppedNoGuest: anyNumber,
  droppedByOut: anyNumber,
  refusedGuests: anyNumber,
  guestConnected: anyBoolean,
  outConnected: anyBoolean,
  hold: latencySummary,
});

const diskStatus = record<DiskStatus>({
  name: anyText,
  mode: oneOf("replicated", "shared"),
  sizeBytes: anyNumber,
  copied: anyNumber,
  resync: record<ResyncProgress>({
    doneBytes: anyNumber,
    equalBytes: anyNumber,
    sentBytes: anyNumber,
  }),
  heldBytes: anyNumber,
  unreleasedWrites: anyNumber,
  limitBytes: anyNumber,
  throttled: anyNumber,
  throttledMs: anyNumber,
  stuck: nullable(anyText),
  waiting: anyNumber,
  stalledMs: anyNumber,
});

export const tapStatus = record<TapStatus>({
  nets: mapOf(netTapCounters),
  disks: listOf(diskStatus),
  diskHold: latencySummary,
  latency: record<TapStatus["latency"]>({ net: eventLatency, disk: eventLatency }),
});

export const RECENT_HOLDS = { netHold: mapOf(recentDurations), diskHold: recentDurations };
