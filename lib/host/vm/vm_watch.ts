/** What a VM's QEMU says of it unasked, kept for whoever has to judge what has become of it. */
import type { VmEvidence } from "../../decisions/vm_fate.ts";
import { queryStatus } from "../../qmp/migration.ts";
import { decodeMigrationStatus, queryMigration } from "../../qmp/migration_status.ts";
import type { QmpEvent } from "../../qmp/session.ts";
import type { QmpClient } from "./qmp_client.ts";
import type { Reactor } from "../system/reactor.ts";

/** How long a QEMU whose stream has ended has to show that it lives. */
const ALIVE_MS = 3000;

/** Of events that tell what QEMU does about something: it stops the VM. */
const STOPPING_ACTIONS: ReadonlySet<unknown> = new Set(["pause", "stop"]);

/** The run state that follows then. */
const STATE_BEHIND: Readonly<Record<string, string>> = {
  GUEST_PANICKED: "guest-panicked",
  WATCHDOG: "watchdog",
  BLOCK_IO_ERROR: "io-error",
};

/** Run states that no migration of ours leads to. */
const STOPPED_BY_OTHERS: ReadonlySet<string> = new Set([
  "paused",
  "debug",
  "io-error",
  "watchdog",
  "guest-panicked",
  "internal-error",
]);

/** The VM was shut down, or is elsewhere: whoever protects it ends, and nothing has failed. */
export class VmEnded extends Error {
  /** @param reason SHUTDOWN's, or in words. */
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

/** What may be heard of a VM. Everything is called in the turn in which it is read; nothing may throw. */
interface VmFollower {
  /** STOP: the VM stands still, whoever has stopped it. */
  stopped?(): void;
  /** RESUME: it runs again. */
  resumed?(): void;
  /** SUSPEND: the guest sleeps; QEMU does not call that a STOP. */
  asleep?(): void;
  /** WAKEUP: it sleeps no longer; QEMU does not call that a RESUME. */
  awake?(): void;
  /** RESET: the guest begins anew. */
  reset?(): void;
  /** The VM has been shut down; QEMU ends, unless it was told not to (`-no-shutdown`). */
  shutDown?(reason: string): void;
  /** QEMU has left the first pass of its migration behind, and is in COLO. */
  inColo?(): void;
  /** QEMU has left COLO, or waits to hear that it is alone: no checkpoint follows. */
  outOfColo?(): void;
}

/**
 * Listens to one QEMU from its connection on: keeps what it has said of its VM, and passes it on to
 * whoever follows, in the order in which they came.
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

  /** Passes on what is heard from now on, until what this returns is called. */
  follow(follower: VmFollower): () => void {
    this.#followers.add(follower);
    return () => this.#followers.delete(follower);
  }

  /** Why the VM was shut down; undefined if it was not. */
  get shutdown(): string | undefined {
    return this.#shutdown;
  }
  get isAsleep(): boolean {
    return this.#isAsleep;
  }

  /** The run state in which QEMU or an operator has stopped the VM, as far as it was said. */
  get standsStill(): string | undefined {
    return this.#standsStill;
  }

  /**
   * Has QEMU asked why a VM has stopped that nobody has told us of. An answer that a RESUME came behind
   * is of no use: events are heard in the turn that reads them, and answers only after it. A VM that
   * has stopped again since is asked of again.
   */
  async lookWhyStopped(): Promise<void> {
    const resumes = this.#resumes;
    try {
      const { status } = await this.#qmp.run(queryStatus()) as { status?: string };
      if (resumes !== this.#resumes) return;
      if (status !== undefined && STOPPED_BY_OTHERS.has(status)) this.#standsStill = status;
    } catch {
      // Its end is seen by others.
    }
  }

  /**
   * Reads the monitor to its end, or asks QEMU where it has none, so that a word that is on its way is
   * heard before a VM is called dead: the end of QEMU's stream may be seen first.
   */
  async evidence(reactor: Reactor): Promise<VmEvidence> {
    // Whatever else fails meanwhile is not about the VM.
    const found = await reactor.seeThrough(this.#ask(), () => {});
    const isAsleep = this.#isAsleep;
    return {
      ...found,
      isAsleep,
      ...(this.#shutdown === undefined ? {} : { shutdown: this.#shutdown }),
    };
  }

  /**
   * Whether the VM has gone on behind what an event tells of. QEMU says WATCHDOG, and newer ones
   * BLOCK_IO_ERROR, once a second at the most: one that comes too soon is kept back, with the time at
   * which it happened, and may arrive behind the RESUME, and behind the next STOP, which is ours.
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
        // A VM that was kept behind its end begins anew.
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
