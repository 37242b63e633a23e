/**
 * What has become of a VM whose QEMU has ended a session: by the end of its stream or its monitor,
 * or by an event.
 *
 * **Why no case makes two VMs run.** The secondary takes over by itself only if it was not told
 * otherwise. It is told otherwise if QEMU is alive, or has said before its end that it shuts its VM
 * down: then the VM is here, or nowhere. If QEMU is gone without that event, or does not answer,
 * nothing is known, and the secondary is told nothing.
 */
import type { PrimaryEnd } from "./primary_end.ts";

/** What QEMU has reported on its VM, and its answers. */
export interface VmEvidence {
  /**
   * The reason in SHUTDOWN: QEMU has ended its VM, and ends itself unless it was told to stay. QEMU
   * sends the event before it closes its migration and its monitor.
   */
  readonly shutdown?: string;
  /** The state of the monitor; a closed monitor was read to its end. */
  readonly monitor: "answers" | "silent" | "closed";
  /**
   * Whether QEMU may be waiting for the end of this process, which it has started by `exec:`, and
   * does not answer meanwhile (QEMU io/channel-command.c). A QEMU that has closed the stream, and
   * keeps its monitor open, is then alive; a process that dies closes both.
   */
  readonly waitsForUs?: boolean;
  /** Whether the guest has suspended itself to RAM (SUSPEND), and has not been woken (WAKEUP). */
  readonly isAsleep?: boolean;
  /** The run state by `query-status`, if the monitor answers. */
  readonly runState?: string;
  /** The migration's status by `query-migrate`, if the monitor answers. */
  readonly migration?: string;
}

/** What has become of it. */
export type VmFate =
  /** QEMU is gone, or does not answer, and has not said why. */
  | { readonly kind: "dead" }
  /** The VM was shut down: by the guest, by an operator, or by a signal. */
  | { readonly kind: "ended"; readonly reason: string }
  /** The guest has suspended itself to RAM. */
  | { readonly kind: "asleep" }
  /**
   * The guest has suspended itself at the very moment when QEMU stopped its VM for a checkpoint.
   * QEMU cannot return to `suspended` from there: 10.0 and 11.1 abort when they are to let the VM
   * go on, and 7.2 wakes the guest without telling it. So this counts as a loss, and the secondary
   * takes over from the moment before.
   */
  | { readonly kind: "stranded" }
  /** Somebody has ended QEMU's migration, and the VM is here. */
  | { readonly kind: "cancelled"; readonly how: string }
  /** QEMU could not go on with its migration, and the VM is here. */
  | { readonly kind: "failed" }
  /** The VM is here, and QEMU has not ended its migration. */
  | { readonly kind: "alive" };

/** Judges by all that is known. */
export function judgeFate(evidence: VmEvidence): VmFate {
  const { shutdown, monitor, waitsForUs, isAsleep = false, runState, migration } = evidence;
  if (shutdown !== undefined) return { kind: "ended", reason: shutdown };
  if (monitor === "silent" && waitsForUs) return { kind: "alive" };
  if (monitor !== "answers") return { kind: "dead" };
  // The VM was shut down before this process connected: QEMU sends SHUTDOWN only once.
  if (runState === "shutdown") return { kind: "ended", reason: "it was shut down before" };
  if (runState === "suspended") return { kind: "asleep" };
  if (isAsleep && STOPPED_FOR_US.has(runState ?? "")) return { kind: "stranded" };
  switch (migration) {
    case "cancelling":
    case "cancelled":
      return { kind: "cancelled", how: "migrate_cancel" };
    case "completed":
      return { kind: "cancelled", how: "x-colo-lost-heartbeat" };
    case "failed":
    case "failing":
      return { kind: "failed" };
    default:
      return { kind: "alive" };
  }
}

/** Run states in which only a migration keeps the VM from running. */
const STOPPED_FOR_US: ReadonlySet<string> = new Set(["colo", "finish-migrate", "postmigrate"]);

/** The kind of session end for a fate; `primary_end.ts` decides what follows. */
export function endBehind(fate: VmFate): PrimaryEnd {
  switch (fate.kind) {
    case "dead":
    case "stranded":
      return "vm-died";
    case "ended":
      return "vm-ended";
    case "asleep":
    case "cancelled":
    case "alive":
      return "vm-rests";
    case "failed":
      return "fault";
  }
}

/** The first wait before the next session, after somebody has ended one. */
const FIRST_WAIT_MS = 2000;
const LONGEST_WAIT_MS = 120_000;
/** If a session has lasted for this time, its end is not related to the end of the one before. */
const LONG_SESSION_MS = 60_000;

/**
 * How long to wait before protecting a VM again whose migration somebody has ended: short at first,
 * in case that was a mistake, and longer each time, in case it was intended.
 *
 * @param before The last wait; 0 if there was none.
 * @param lastedMs How long the ended session had lasted.
 */
export function waitAfterCancel(before: number, lastedMs: number): number {
  if (before === 0 || lastedMs >= LONG_SESSION_MS) return FIRST_WAIT_MS;
  return Math.min(2 * before, LONGEST_WAIT_MS);
}
