/**
 * The warm standby: a QEMU that runs beside the replica, with the replica's files as its RAM.
 *
 * ```text
 * none ──image──► checking ──► starting ──► ready ──activation──► loading ──► told ──► running
 *  ▲               │    ▲         ▲           │ │ it dies              │   refuses│ it ends
 *  └─the very first┘    └─────────┼──check────┘ │                      ▼ ◄────────┴──► spent
 *    check fails                  └─────────────┘               dead for certain: cold
 *                                                               close(): closed, from all of them
 * ```
 *
 * Before a transaction of another shape than the last one's is committed (the first one; one with a
 * device that was plugged since) its state is loaded into a rehearsal: the operator's command with
 * private RAM, stopped, and ended right after. If QEMU would refuse the state at the takeover, it
 * refuses now. The guest does not run, and the files stay as they are. No standby runs beside the
 * rehearsal, since the command may claim resources that only one process can have. Until the
 * transaction is committed, and if the rehearsal fails, the standby for the last committed state
 * goes on.
 */
import { getLogger } from "@logtape/logtape";
import { StateError, TransportError } from "../../errors.ts";
import type { StandbyStatus } from "../../control/receiver_status.ts";
import type { LoadableState } from "../../replica/secondary/compose_replica.ts";
import type { MachineShape } from "../../replica/secondary/machine_shape.ts";
import { letRun } from "./let_run.ts";
import type { StreamConsumer } from "./write_replica.ts";
import type { BlockFile } from "../ram_dir/file_pages.ts";
import {
  explainFailure,
  type Instance,
  nameChange,
  rehearse,
  type Rehearsed,
} from "./rehearsal.ts";
import { StandbyLauncher } from "./standby_launcher.ts";
import { awaitState, sendState } from "./standby_process.ts";
import { mayHaveRun, type StandbyState, statusOf } from "./standby_state.ts";

const log = getLogger(["kemari", "standby"]);

/** How long a load may take; normally it takes some ten milliseconds. */
const LOAD_MS = 5000;
/** How long an activation waits for a standby that is just starting. */
const READY_MS = 3000;
const RESTART_MS = [100, 500, 2000, 10_000];

/** When each part of an activation was over, in milliseconds of performance.now(). */
export interface LoadTimes {
  readonly loadedAt: number;
  readonly runningAt: number;
}

/** QEMU has ended, and its VM may have run before: the replica is no longer what was committed. */
export class RanAndEnded extends TransportError {}

/** The check of a state that is to be committed. */
interface Check {
  /** Nobody waits for it any more. */
  isAbandoned: boolean;
  /** Settles when the check is over, passed or not. */
  done: Promise<void>;
}

/** An activation. */
interface Activation {
  /** Nobody waits for it any more. */
  isAbandoned: boolean;
}

/** A rehearsal that was started before there was a state to load. */
interface EarlyRehearsal {
  readonly files: readonly BlockFile[];
  readonly instance: Promise<Instance>;
}

export class Standby {
  readonly #qemus: StandbyLauncher;
  #state: StandbyState = { at: "none" };
  #reason: string | null = null;
  #restarts = 0;
  /** The files of the committed state. */
  #current: Rehearsed | undefined;
  /** The files of the state that is to be committed next. */
  #checked: Rehearsed | undefined;
  #early: EarlyRehearsal | undefined;
  #check: Check | undefined;
  #activation: Activation | undefined;
  /** Counts starts and stops: a standby started before the last stop is not wanted any more. */
  #round = 0;
  #failures = 0;
  #restartTimer: ReturnType<typeof setTimeout> | undefined;

  /**
   * @param command The operator's command, without `-incoming`.
   * @param folder The folder for its sockets, which this object owns and removes.
   */
  constructor(command: string, folder: string) {
    this.#qemus = new StandbyLauncher(command, folder);
  }

  get status(): StandbyStatus {
    const process = this.#instance?.process;
    return {
      state: statusOf(this.#state),
      pid: process === undefined || process.hasEnded ? null : process.pid,
      restarts: this.#restarts,
      reason: this.#reason,
    };
  }
  /** Whether states can be rehearsed; otherwise every activation is cold. */
  get canRehearse(): boolean {
    return this.#state.at !== "cold";
  }
  get #instance(): Instance | undefined {
    return "instance" in this.#state ? this.#state.instance : undefined;
  }

  /** The shape that the standby is known to load with RAM in these files, if there is one. */
  rehearsed(files: readonly BlockFile[]): MachineShape | undefined {
    const current = this.#current;
    return current !== undefined && isSame(current.files, files) ? current.shape : undefined;
  }

  /**
   * Announces the files for a VM's RAM. The first rehearsal starts while they are filled; a standby
   * that runs stays, for what was committed last.
   */
  image(files: readonly BlockFile[]): void {
    if (this.#current !== undefined || !this.canRehearse) return;
    const stopped = this.#stop();
    this.#state = { at: "checking" };
    const instance = stopped.then(() => this.#qemus.launch(files, false));
    instance.catch(() => {});
    this.#early = { files, instance };
  }

  /**
   * Checks that the command starts the machine of a state, by loading the state. To be followed by
   * {@link settle}.
   *
   * @param files The files with the state's RAM, as far as it is committed.
   * @throws {QemuError} the difference; the standby is as before.
   */
  check(state: LoadableState, files: readonly BlockFile[]): Promise<void> {
    const check: Check = { isAbandoned: false, done: Promise.resolve() };
    this.#check = check;
    const looking = this.#look(state, files, check).catch((error) => {
      this.#fallBack();
      throw error;
    }).finally(() => this.#check = undefined);
    check.done = looking.catch(() => {});
    return looking;
  }

  /** Ends a check at once, which then fails. */
  abandon(): void {
    if (this.#check === undefined) return;
    this.#check.isAbandoned = true;
    this.#qemus.killAll().catch(() => {});
  }

  /**
   * Starts the standby after a check.
   *
   * @param isCommitted Whether the checked state was committed; otherwise the standby is for the
   *   state before.
   */
  settle(isCommitted: boolean): void {
    const checked = this.#checked;
    this.#checked = undefined;
    if (checked === undefined) return;
    if (isCommitted) this.#current = checked;
    this.#fallBack();
  }

  #fallBack(): void {
    if (this.#state.at !== "checking") return;
    if (this.#current === undefined) this.#state = { at: "none" };
    else this.#start();
  }

  async #look(state: LoadableState, files: readonly BlockFile[], check: Check): Promise<void> {
    const begun = performance.now();
    const early = this.#early;
    this.#early = undefined;
    const starting = early !== undefined && isSame(early.files, files)
      ? early.instance
      : this.#stop().then(() => {
        throwIfAbandoned(check);
        return this.#qemus.launch(files, false);
      });
    this.#state = { at: "checking" };
    let instance: Instance | undefined;
    try {
      instance = await starting;
      const shared = this.#qemus.sharedOf(files);
      const checked = await rehearse(instance, state, files, shared);
      throwIfAbandoned(check);
      this.#checked = checked;
      if (checked === undefined) return this.#goCold("this QEMU has no x-ignore-shared");
      log.info("the standby loads this machine; checked in {ms} ms", {
        ms: Math.round(performance.now() - begun),
      });
    } catch (error) {
      if (check.isAbandoned) {
        throw new TransportError("--standby", "close", "the transaction is not to be committed", {
          party: "standby",
        });
      }
      const why = await explainFailure(error, instance);
      throw nameChange(why, this.#current?.shape, state.shape);
    } finally {
      if (instance !== undefined) await this.#end(instance);
    }
  }

  /**
   * Loads the replica's device state, and lets the VM run.
   *
   * @param runs Whether the VM ran at the primary; a VM that was paused stays paused.
   * @returns The running QEMU; `undefined` if there is none, and no process of it is left.
   * @throws {RanAndEnded} if QEMU ended after it was told to run.
   */
  async activate(
    replica: LoadableState,
    runs: boolean,
  ): Promise<StreamConsumer & LoadTimes | undefined> {
    const activation: Activation = this.#activation = { isAbandoned: false };
    this.abandon();
    await this.#check?.done;
    const instance = await this.#ready();
    if (activation.isAbandoned) return undefined;
    if (instance === undefined) {
      this.#goCold(this.#reason ?? "it is not running");
      await this.#stop();
      return undefined;
    }
    const { process, client, socket } = instance;
    this.#state = { at: "loading", instance };
    try {
      await sendState(client, socket, replica.compose(this.#current!.addresses), LOAD_MS);
      const loadedAt = performance.now();
      await process.keep();
      throwIfAbandoned(activation);
      let runningAt = loadedAt;
      if (runs) {
        this.#state = { at: "told", instance };
        const refusal = await letRun(process, client);
        if (refusal !== undefined) {
          if (!activation.isAbandoned) this.#state = { at: "loading", instance };
          throw refusal;
        }
        runningAt = performance.now();
      }
      this.#state = { at: "running", instance };
      // All connections are made; later this process may end before it could remove the sockets.
      await this.#qemus.removeSockets();
      client.closed.then(() => {}, () => {});
      return {
        exitCode: process.exitCode,
        kill: () => void process.kill().catch(() => {}),
        loadedAt,
        runningAt,
      };
    } catch (error) {
      const why = await explainFailure(error, instance);
      const ran = mayHaveRun(this.#state);
      await this.#stop();
      if (ran) {
        throw new RanAndEnded("--standby", "write", `it ended as it began to run: ${why.message}`, {
          party: "standby",
          hint: "the guest may have run for a moment, so the replica of its memory is lost: " +
            "start the guest anew",
        });
      }
      this.#goCold(why.message);
      return undefined;
    }
  }

  /**
   * Nobody waits for an activation any more: if the VM has not been told to run, it never will be.
   *
   * @returns Whether the VM may have run here.
   */
  giveUp(): boolean {
    if (this.#activation !== undefined) this.#activation.isAbandoned = true;
    return mayHaveRun(this.#state);
  }

  /**
   * Ends every process, and removes the sockets.
   *
   * @param hasOwner Whether a running VM was handed to an owner, who ends it.
   */
  async close(hasOwner = true): Promise<void> {
    this.giveUp();
    const instance = this.#instance;
    const mayStay = this.#state.at === "running" && hasOwner;
    this.#state = { at: "closed" };
    await this.#early?.instance.catch(() => {});
    if (!mayStay) await this.#stop();
    await instance?.client.close();
    await this.#qemus.removeSockets();
  }

  #goCold(reason: string): void {
    if (this.#state.at === "closed") return;
    this.#state = { at: "cold" };
    this.#reason = reason;
    log.warn("no warm standby, activation is cold: {reason}", { reason });
  }

  /** Waits a little for a standby that is just starting. @returns `undefined` if none is ready. */
  async #ready(): Promise<Instance | undefined> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<void>((resolve) => timer = setTimeout(resolve, READY_MS));
    while (this.#state.at === "starting") {
      const tried = this.#state.tried.then(() => true);
      if (await Promise.race([tried, late.then(() => false)])) continue;
      this.#reason = `it was not ready within ${READY_MS} ms`;
      break;
    }
    clearTimeout(timer);
    return this.#state.at === "ready" ? this.#state.instance : undefined;
  }

  #start(): void {
    this.#state = { at: "starting", tried: this.#startNow(++this.#round) };
  }

  async #startNow(round: number): Promise<void> {
    let instance: Instance | undefined;
    try {
      instance = await this.#qemus.launch(this.#current!.files, true);
      const { client, socket } = instance;
      await awaitState(client, ["events", "x-ignore-shared"], socket);
      if (this.#round !== round) throw new StateError("the standby is not wanted any more");
      this.#state = { at: "ready", instance };
      this.#failures = 0;
      log.info("standby ready, process {pid}", { pid: instance.process.pid });
      const ready = instance;
      client.closed.then(() => this.#died(ready));
    } catch (error) {
      const why = await explainFailure(error, instance);
      if (instance !== undefined) await this.#end(instance);
      if (this.#round === round) this.#restart(why.message);
    }
  }

  #died(instance: Instance): void {
    if (this.#state.at !== "ready" || this.#state.instance !== instance) return;
    const again = async () => {
      const { message } = await instance.process.failure("wait");
      await this.#end(instance);
      this.#restart(message);
    };
    this.#state = { at: "starting", tried: again() };
  }

  #restart(reason: string): void {
    if (this.#state.at !== "starting") return;
    this.#reason = reason;
    this.#restarts++;
    const waitMs = RESTART_MS[Math.min(this.#failures++, RESTART_MS.length - 1)];
    log.warn("standby lost: {reason}; started again in {waitMs} ms", { reason, waitMs });
    const tried = new Promise<void>((resolve) => {
      this.#restartTimer = setTimeout(() => {
        if (this.#state.at !== "starting") return resolve();
        this.#startNow(++this.#round).then(resolve);
      }, waitMs);
    });
    this.#state = { at: "starting", tried };
  }

  /** @throws {TransportError} if a process does not end. */
  async #stop(): Promise<void> {
    this.#round++;
    clearTimeout(this.#restartTimer);
    const instance = this.#instance;
    if (instance !== undefined) this.#state = { at: mayHaveRun(this.#state) ? "spent" : "none" };
    await instance?.client.close();
    await this.#qemus.killAll();
  }

  async #end({ process, client }: Instance): Promise<void> {
    await client.close();
    await process.kill();
  }
}

function isSame(a: readonly BlockFile[], b: readonly BlockFile[]): boolean {
  return a.length === b.length && a.every(({ path }, i) => path === b[i].path);
}

function throwIfAbandoned(asked: Check | Activation): void {
  if (asked.isAbandoned) throw new StateError("nobody waits for it");
}
