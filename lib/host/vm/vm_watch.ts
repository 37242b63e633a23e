/** What QEMU reports on its VM by events, kept to judge what has become of the VM. */
import type { VmEvidence } from "../../decisions/vm_fate.ts";
import { queryStatus } from "../../qmp/migration.ts";
import { decodeMigrationStatus, queryMigration } from "../../qmp/migration_status.ts";
import type { QmpEvent } from "../../qmp/session.ts";
import type { QmpClient } from "./qmp_client.ts";
import type { Reactor } from "../system/reactor.ts";

/** How long a QEMU whose stream has ended has to show that it is alive. */
const ALIVE_MS = 3000;

/** The action "stop the VM", in events that report what QEMU does about something. */
const STOPPING_ACTIONS: ReadonlySet<unknown> = new Set(["pause", "stop"]);

/** The run state that follows each of these events if QEMU stops the VM. */
const STATE_BEHIND: Readonly<Record<string, string>> = {
  GUEST_PANICKED: "guest-panicked",
  WATCHDOG: "watchdog",
  BLOCK_IO_ERROR: "io-error",
};

/** Run states to which a migration of ours does not lead. */
const STOPPED_BY_OTHERS: ReadonlySet<string> = new Set([
  "paused",
  "debug",
  "io-error",
  "watchdog",
  "guest-panicked",
  "internal-error",
]);

/** The VM was shut down, or is elsewhere: its protection ends, and nothing has failed. */
export class VmEnded extends Error {
  /** @param reason The reason that SHUTDOWN gives, or words. */
  constructor(readonly reason: string) {
    super(`the VM has ended: ${reason}`);
    this.name = "VmEnded";
  }
}

/** The guest has suspended itself to RAM: a session with a secondary ends, and another follows. */
export class GuestSleeps extends Error {
  constructor() {
    super("the guest sleeps (suspended to RAM)");
    this.name = "GuestSleeps";
  }
}

/**
 * Follows a VM. Every method is called in the turn of the reactor in which the event is read; none
 * may throw.
 */
interface VmFollower {
  /** STOP: the VM stands still, for whatever reason. */
  stopped?(): void;
  /** RESUME: the VM runs again. */
  resumed?(): void;
  /** SUSPEND: the guest sleeps; QEMU does not call that a STOP. */
  asleep?(): void;
  /** WAKEUP: the guest sleeps no longer; QEMU does not call that a RESUME. */
  awake?(): void;
  /** RESET: the guest begins anew. */
  reset?(): void;
  /** SHUTDOWN: the VM has been shut down. QEMU ends, unless it was told not to (`-no-shutdown`). */
  shutDown?(reason: string): void;
  /** The first pass of QEMU's migration is over, and QEMU is in COLO. */
  inColo?(): void;
  /** QEMU has left COLO, or waits for `x-colo-lost-heartbeat`: no checkpoint follows. */
  outOfColo?(): void;
}

/**
 * Listens to one QEMU from its connection on: keeps what QEMU has reported on its VM, and passes it
 * on to the followers, in the order in which they came.
 *
 * ```text
 * STOP, RESUME      BLOCK_IO_ERROR, WATCHDOG, GUEST_PANICKED ──► standsStill, until RESUME or RESET
 * SUSPEND, WAKEUP   ──► isAsleep                  SHUTDOWN, a watchdog's poweroff ──► shutdown
 * MIGRATION "colo"  ──► inColo                    RESET ──► all of it begins anew
 * COLO_EXIT         ──► outOfColo
 * ```
 */
export class VmWatch {
  readonly #qmp: QmpClient;
  readonly #followers = new Set<VmFollower>();
  #shutdown: string | undefined;
  #isAsleep = false;
  #standsStill: string | undefined;
  #resumes = 0;
  /** By QEMU's own clock, see {@link QmpEvent.timestampMs}. */
  #resumedAtMs = -Infinity;

  constructor(qmp: QmpClient) {
    this.#qmp = qmp;
    qmp.onEvent((event) => this.#heard(event));
  }

  /** Adds a follower. @returns A function that removes it. */
  follow(follower: VmFollower): () => void {
    this.#followers.add(follower);
    return () => this.#followers.delete(follower);
  }

  /** Why the VM was shut down; undefined if it was not shut down. */
  get shutdown(): string | undefined {
    return this.#shutdown;
  }
  get isAsleep(): boolean {
    return this.#isAsleep;
  }

  /** The run state in which QEMU or an operator has stopped the VM, if it is known. */
  get standsStill(): string | undefined {
    return this.#standsStill;
  }

  /**
   * Asks QEMU why its VM has stopped, when no event has said so. If a RESUME has come meanwhile,
   * the answer is of no use: events are handled in the turn that reads them, and answers only after
   * that turn. If the VM has stopped again since, QEMU is asked again.
   */
  async lookWhyStopped(): Promise<void> {
    const resumes = this.#resumes;
    try {
      const { status } = await this.#qmp.run(queryStatus()) as { status?: string };
      if (resumes !== this.#resumes) return;
      if (status !== undefined && STOPPED_BY_OTHERS.has(status)) this.#standsStill = status;
    } catch {
      // Other code sees the monitor's end.
    }
  }

  /**
   * Reads the monitor to its end, or asks QEMU if the monitor has not ended, so that an event on
   * its way is heard before the VM is called dead: the end of QEMU's stream may be seen first.
   */
  async evidence(reactor: Reactor): Promise<VmEvidence> {
    // Other failures meanwhile do not concern the VM.
    const found = await reactor.seeThrough(this.#ask(), () => {});
    const isAsleep = this.#isAsleep;
    return {
      ...found,
      isAsleep,
      ...(this.#shutdown === undefined ? {} : { shutdown: this.#shutdown }),
    };
  }

  /**
   * Whether the VM has gone on since an event happened. QEMU sends WATCHDOG, and newer ones send
   * BLOCK_IO_ERROR, once a second at the most: an event that comes sooner is kept back, with the
   * time at which it happened. It may arrive after the RESUME, and after the next STOP, which is
   * ours.
   *
   * @see QEMU monitor/monitor.c, monitor_qapi_event_conf
   */
  #isOutrun(timestampMs: number | undefined): boolean {
    return timestampMs !== undefined && timestampMs < this.#resumedAtMs;
  }

  #heard({ name, data, timestampMs }: QmpEvent): void {
    switch (name) {
      case "STOP":
        return this.#tell((follower) => follower.stopped?.());
      case "RESUME":
        this.#resumes++;
        this.#resumedAtMs = timestampMs ?? this.#resumedAtMs;
        this.#standsStill = undefined;
        return this.#tell((follower) => follower.resumed?.());
      case "SUSPEND":
        this.#isAsleep = true;
        return this.#tell((follower) => follower.asleep?.());
      case "WAKEUP":
        this.#isAsleep = false;
        return this.#tell((follower) => follower.awake?.());
      case "SHUTDOWN":
        return this.#ends(typeof data.reason === "string" ? data.reason : "shutdown");
      case "GUEST_PANICKED":
      case "WATCHDOG":
      case "BLOCK_IO_ERROR":
        // QEMU then exits at once, without SHUTDOWN (hw/watchdog/watchdog.c).
        if (name === "WATCHDOG" && data.action === "poweroff") return this.#ends("watchdog");
        if (STOPPING_ACTIONS.has(data.action) && !this.#isOutrun(timestampMs)) {
          this.#standsStill = STATE_BEHIND[name];
        }
        return;
      case "RESET":
        // A VM that was kept (`-no-shutdown`) after its end starts anew.
        this.#shutdown = undefined;
        this.#isAsleep = false;
        this.#standsStill = undefined;
        return this.#tell((follower) => follower.reset?.());
      case "MIGRATION":
        if (decodeMigrationStatus(data).phase !== "colo") return;
        return this.#tell((follower) => follower.inColo?.());
      case "COLO_EXIT":
        return this.#tell((follower) => follower.outOfColo?.());
    }
  }

  #tell(what: (follower: VmFollower) => void): void {
    for (const follower of this.#followers) what(follower);
  }

  #ends(reason: string): void {
    this.#shutdown = reason;
    this.#tell((follower) => follower.shutDown?.(reason));
  }

  async #ask(): Promise<VmEvidence> {
    const word = (reply: unknown) => (reply as { status?: string } | null)?.status;
    try {
      const [status, migration] = await Promise.all(
        [queryStatus(), queryMigration()].map((query) => {
          return this.#qmp.run(query, { timeoutMs: ALIVE_MS });
        }),
      );
      return { monitor: "answers", runState: word(status), migration: word(migration) ?? "none" };
    } catch {
      return { monitor: this.#qmp.isOpen ? "silent" : "closed" };
    }
  }
}
