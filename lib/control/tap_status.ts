/** The status of an end's taps. */
import {
  type LatencySummary,
  latencySummary,
  type RecentDurations,
  recentDurations,
} from "./recent_durations.ts";
import { anyBoolean, anyNumber, anyText, listOf, mapOf, nullable, oneOf, record } from "./shape.ts";

/** The parts of the time for which output of a class is held, in ms. */
export interface EventLatencySummary {
  /**
   * From the first event of an epoch to the request for a synchronization, or its beginning without
   * a request.
   */
  readonly trigger: LatencySummary;
  /** From then to the secondary's acknowledgement. */
  readonly commit: LatencySummary;
  /** From then until everything of the epoch has left, or is written. */
  readonly release: LatencySummary;
}

/** The frames of a tap since it was opened. */
export interface NetTapCounters {
  /** Frames that wait for their epoch now. */
  readonly heldFrames: number;
  readonly heldBytes: number;
  /** All waiting frames: held ones, and those that OUT has not taken yet. */
  readonly queuedFrames: number;
  readonly queuedBytes: number;
  /** From the guest to the world without being held. */
  readonly passedOut: number;
  /** From the guest to the world after their epoch was released. */
  readonly releasedFrames: number;
  /** From the world to the guest. */
  readonly passedIn: number;
  /** From the world to the guest while no VM ran: dropped, as with a machine that is off. */
  readonly droppedNoGuest: number;
  /** From the guest to the world: dropped, since OUT would never take them. */
  readonly droppedByOut: number;
  /** How many QEMUs were turned away because another was connected. */
  readonly refusedGuests: number;
  readonly guestConnected: boolean;
  readonly outConnected: boolean;
  /** For released frames: from reading them out of QEMU's socket until they left. */
  readonly hold: LatencySummary;
}

/** The progress of a disk's resync, in bytes of the disk. */
export interface ResyncProgress {
  /** Compared, or copied without comparison; the whole disk when it is done. */
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
  /** The progress in this session, in bytes of the disk. */
  readonly resync: ResyncProgress;
  readonly heldBytes: number;
  readonly unreleasedWrites: number;
  /** When more bytes than this are held, requests of the guest wait for bursts. */
  readonly limitBytes: number;
  /** How often and how long they have waited. */
  readonly throttled: number;
  readonly throttledMs: number;
  /** Why the image does not take writes that it should have by now; null if it takes them. */
  readonly stuck: string | null;
  /** Requests that the image's storage has not answered yet. */
  readonly waiting: number;
  /** For how long it has answered none of them; 0 if there is none. */
  readonly stalledMs: number;
}

/** Why output is held. */
export type HeldClass = "net" | "disk";

export interface TapStatus {
  readonly nets: Readonly<Record<string, NetTapCounters>>;
  readonly disks: readonly DiskStatus[];
  /** First write of an epoch to its release, ms. */
  readonly diskHold: LatencySummary;
  /** The parts of the time for which output is held, by class. */
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
