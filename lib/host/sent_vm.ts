import { getLogger } from "@logtape/logtape";
import { judgeFate, type VmFate } from "../decisions/vm_fate.ts";
import { TransportError } from "../errors.ts";
import { triggerCheckpoint } from "../qmp/migration.ts";
import { decodeMigrationStatus, queryMigration } from "../qmp/migration_status.ts";
import { CheckpointRequests } from "./protect/checkpoint_requests.ts";
import type { PrimaryTapDevices } from "./taps/primary_tap_devices.ts";
import type { SyncOn } from "./taps/tap_settings.ts";
import { QmpClient } from "./vm/qmp_client.ts";
import { releaseVm, runState, staysInColo } from "./vm/release_vm.ts";
import { namedVm, readVmIdentity } from "./vm/read_vm_identity.ts";
import type { VmIdentity } from "../decisions/whose_replica.ts";
import type { Reactor } from "./system/reactor.ts";
import type { SenderLink } from "./link/sender_link.ts";
import { VmWatch } from "./vm/vm_watch.ts";

const log = getLogger(["kemari", "send"]);

/** The settings of `kemari send` that {@link SentVm} needs. */
interface SentVmSettings {
  readonly syncOn: SyncOn;
  readonly syncMinIntervalMs: number;
  /** QEMU's interval between checkpoints, which every request for a synchronization sets. */
  readonly syncIntervalMs: number;
}

/**
 * The VM whose stream `kemari send` is given, seen through its monitor: whether the VM runs,
 * requests for its checkpoints, and what has become of it.
 *
 * A guest that suspends itself to RAM is treated like a paused one: QEMU gets no leave to stop its
 * VM until the guest wakes, since after a checkpoint QEMU 10.0 and 11.1 abort, and 7.2 wakes the
 * guest.
 */
export class SentVm {
  readonly #qmp: QmpClient;
  readonly #link: SenderLink;
  readonly #watch: VmWatch;
  readonly #reactor: Reactor;
  readonly #requests: CheckpointRequests;
  #delayMs: number | undefined;
  #hasLeftColo = false;

  /** Listens from now on. */
  constructor(
    qmp: QmpClient,
    link: SenderLink,
    taps: PrimaryTapDevices,
    settings: SentVmSettings,
    reactor: Reactor,
  ) {
    this.#qmp = qmp;
    this.#link = link;
    this.#reactor = reactor;
    const watch = this.#watch = new VmWatch(qmp);
    this.#requests = new CheckpointRequests({
      ...{ reactor, watch, taps, settings, peer: "the secondary" },
      ask: () => qmp.run(triggerCheckpoint(settings.syncIntervalMs)),
      prepare: () => this.#learnDelay(),
    });
    this.#requests.begin(link);
    watch.follow({
      asleep: () => link.primary.dialogue.vmStopped(),
      awake: () => link.vmResumed(),
      outOfColo: () => void this.#lookWhetherLeft(),
    });
  }

  /**
   * Asks for the VM's state: COLO may have begun before the monitor was connected, and somebody may
   * have paused the VM since. Later changes come as events.
   */
  async look(): Promise<void> {
    const migration = decodeMigrationStatus(await this.#qmp.run(queryMigration()));
    const state = await runState(this.#qmp);
    // After a checkpoint QEMU sends RESUME.
    if (migration.phase !== "colo" || this.#link.primary.dialogue.inCheckpoint) return;
    this.#link.vmResumed();
    if (state !== "running") this.#link.primary.dialogue.vmStopped();
  }

  /**
   * Whether somebody has stopped the VM: kemari must not let it run. A sleeping guest does not
   * count: its VM goes on when the guest wakes.
   */
  get isPaused(): boolean {
    const { isAsleep, standsStill } = this.#watch;
    return this.#link.primary.dialogue.isVmPaused && !isAsleep || standsStill !== undefined;
  }

  /**
   * Whether no checkpoint follows any more. QEMU's stream need not have ended: `migrate_cancel`
   * leaves the pipes of `exec:` open.
   */
  get hasLeftColo(): boolean {
    return this.#hasLeftColo;
  }

  /** The operator's interval between checkpoints, if a request has changed it. */
  get changedDelayMs(): number | undefined {
    return this.#delayMs;
  }

  /** Ends the requests for checkpoints. */
  rest(): void {
    this.#requests.rest();
  }

  /**
   * What has become of the VM, if QEMU has ended the session.
   *
   * @param error The error that has ended the session.
   */
  async fateBehind(error: unknown): Promise<VmFate | undefined> {
    if (!(error instanceof TransportError) || error.party !== "qemu") return undefined;
    return judgeFate({ ...await this.#watch.evidence(this.#reactor), waitsForUs: true });
  }

  /**
   * Whether QEMU has left COLO; by an error of its own it stays in the state COLO, and waits for a
   * command.
   */
  async #lookWhetherLeft(): Promise<void> {
    const reply = await this.#qmp.run(queryMigration()).catch(() => undefined);
    this.#hasLeftColo = reply !== undefined && decodeMigrationStatus(reply).phase !== "colo";
    this.#reactor.wake();
  }

  /** Notes the operator's interval, which a request for a checkpoint changes. */
  async #learnDelay(): Promise<void> {
    const parameters = await this.#qmp.execute("query-migrate-parameters");
    const delayMs = (parameters as Record<string, unknown>)["x-checkpoint-delay"];
    if (typeof delayMs === "number") this.#delayMs = delayMs;
  }
}

/** A QEMU that is writing its stream may not answer before the stream is read. */
const IDENTITY_MS = 1000;

/** The VM's identity, as far as QEMU tells it before its stream is read. */
export async function identityOfSent(
  { qmp, vm }: { readonly qmp?: string; readonly vm?: string },
): Promise<VmIdentity> {
  if (qmp === undefined) return namedVm(vm);
  try {
    await using client = await QmpClient.connect(qmp, { timeoutMs: IDENTITY_MS });
    client.patienceMs = IDENTITY_MS;
    return await readVmIdentity(client, vm);
  } catch (error) {
    if (!(error instanceof TransportError)) throw error;
    return namedVm(vm);
  }
}

/** How often to look at a VM that has to stay in COLO; the monitor is free for others meanwhile. */
const LATER_MS = 1000;

/** Waits as long as the end of COLO would harm the VM: it would wake a sleeping guest. */
async function untilToBeTold(qmp: string): Promise<void> {
  for (let told = false;; told = true) {
    const state = await mustWait(qmp);
    if (state === undefined) return;
    if (!told) {
      log.info("the VM is {state}: QEMU is told that it is unprotected when that is over", {
        state,
      });
    }
    await new Promise((resolve) => setTimeout(resolve, LATER_MS));
  }
}

async function mustWait(qmp: string): Promise<string | undefined> {
  await using client = await QmpClient.connect(qmp, { timeoutMs: 2000 });
  return await staysInColo(client);
}

/** Ends COLO in a QEMU whose secondary is lost, so that its VM does not stand still for ever. */
export async function releaseSentVm(
  qmp: string,
  action: "continue" | "stop",
  delayMs: number | undefined,
): Promise<void> {
  await using _ = await tellSentVm(qmp, action, delayMs);
}

/**
 * Stops a VM that the secondary may be running, and goes on listening, in case somebody lets the VM
 * run here all the same. QEMU serves nobody else on this monitor meanwhile.
 *
 * @param onResumed Called, by the runtime, each time that the VM runs again.
 * @returns The monitor, whose closing ends the listening; undefined if QEMU could not be told.
 */
export async function stopSentVm(
  qmp: string,
  delayMs: number | undefined,
  onResumed: () => void,
): Promise<QmpClient | undefined> {
  const client = await tellSentVm(qmp, "stop", delayMs);
  if (client === undefined) return undefined;
  new VmWatch(client).follow({ resumed: onResumed });
  // Somebody may have let the VM run before this process listened; QEMU did stop it.
  if (await runState(client).catch(() => undefined) === "running") onResumed();
  return client;
}

/**
 * @returns The monitor, which the caller closes; undefined if QEMU was not told, which was logged.
 */
async function tellSentVm(
  qmp: string,
  action: "continue" | "stop",
  delayMs: number | undefined,
): Promise<QmpClient | undefined> {
  let client: QmpClient | undefined;
  try {
    await untilToBeTold(qmp);
    client = await QmpClient.connect(qmp, { timeoutMs: 2000 });
    const state = await releaseVm(client, action);
    // Only now: in COLO this would ask for another checkpoint.
    if (delayMs !== undefined) await client.run(triggerCheckpoint(delayMs));
    log.warn("the VM is {state}, unprotected", { state });
    return client;
  } catch (error) {
    log.error("QEMU was not told that the secondary is lost: {reason}", {
      reason: (error as Error).message,
    });
    await client?.close();
    return undefined;
  }
}

/** Restores the operator's interval between checkpoints in a QEMU whose migration is over. */
export async function putDelayBack(qmp: string, delayMs: number | undefined): Promise<void> {
  if (delayMs === undefined) return;
  try {
    await using client = await QmpClient.connect(qmp, { timeoutMs: 2000 });
    await client.run(triggerCheckpoint(delayMs));
  } catch (error) {
    log.warn("x-checkpoint-delay was not restored: {reason}", { reason: (error as Error).message });
  }
}
