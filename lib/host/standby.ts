/**
 * The warm standby: a QEMU that runs beside the replica, its RAM the replica's files.
 *
 * ```text
 * none ──image──► checking ──► starting ──► ready ──activation──► loading ──► running
 *                    │            ▲           │ it dies                │
 *                    ▼            └───────────┘                        ▼
 *              another machine                                  dead for certain: cold
 * ```
 *
 * Before the first transaction is acknowledged its state is loaded into a rehearsal: the operator's
 * command, RAM private, stopped, ended right after. What QEMU would refuse at the takeover it refuses
 * then. The guest's processors never run in it, and the files stay as they are.
 */
import { getLogger } from "@logtape/logtape";
import { KemariError, QemuError, TransportError } from "../errors.ts";
import type { Replica } from "../replica/replica.ts";
import type { StreamConsumer } from "./activation.ts";
import type { QmpClient } from "./qmp_client.ts";
import type { BlockFile } from "./file_pages.ts";
import {
  compareBlocks,
  mismatch,
  parseBlockAddresses,
  parseRamBlocks,
  planStandby,
} from "./standby_command.ts";
import { awaitState, sendState, StandbyProcess } from "./standby_process.ts";

const log = getLogger(["kemari", "standby"]);

const REHEARSAL_MS = 30_000;
/** A load takes some ten milliseconds; a standby that takes this long is given up. */
const LOAD_MS = 5000;
/** How long an activation waits for a standby that is just starting. */
const READY_MS = 3000;
const RESTART_MS = [100, 500, 2000, 10_000];

/** What `kemari status` tells of it. */
export interface StandbyStatus {
  readonly state: "none" | "checking" | "starting" | "ready" | "loading" | "running" | "cold";
  /** QEMU's process id, where one runs. */
  readonly pid: number | null;
  /** How often it has died and been started again. */
  readonly restarts: number;
  /** Why the last one died, or why activation will be cold. */
  readonly reason: string | null;
}

/** When an activation's parts were over, in milliseconds of performance.now(). */
export interface LoadTimes {
  readonly loadedAt: number;
  readonly runningAt: number;
}

/** The VM may have run already when it ended: its replica is no longer what was committed. */
export class RanAndEnded extends TransportError {}

interface Instance {
  readonly process: StandbyProcess;
  readonly client: QmpClient;
  readonly socket: string;
}

export class Standby {
  readonly #command: string;
  readonly #folder: string;
  #state: StandbyStatus["state"] = "none";
  #reason: string | null = null;
  #restarts = 0;
  #files: readonly BlockFile[] = [];
  #addresses: ReadonlyMap<string, number> = new Map();
  #rehearsal: Promise<Instance> | undefined;
  #checking: Promise<void> | undefined;
  #starting: Promise<void> = Promise.resolve();
  #instance: Instance | undefined;
  readonly #processes = new Set<StandbyProcess>();
  #launches = 0;
  #failures = 0;
  #restartTimer: ReturnType<typeof setTimeout> | undefined;
  #needsCheck = true;
  #closed = false;

  /**
   * @param command The operator's, without `-incoming`.
   * @param folder Where its sockets are; ours from now on, and removed with the last use of
   *   them.
   */
  constructor(command: string, folder: string) {
    this.#command = command;
    this.#folder = folder;
  }

  get status(): StandbyStatus {
    const process = this.#instance?.process;
    return {
      state: this.#state,
      pid: process === undefined || process.hasEnded ? null : process.pid,
      restarts: this.#restarts,
      reason: this.#reason,
    };
  }
  /** Whether what is committed must not be acknowledged before {@link check}. */
  get needsCheck(): boolean {
    return this.#needsCheck;
  }

  /** A VM's RAM lies in these files from now on. The rehearsal starts while they are filled. */
  image(files: readonly BlockFile[]): void {
    this.#files = files;
    this.#needsCheck = true;
    this.#state = "checking";
    this.#rehearsal = this.#stop().then(() => this.#launch(false));
    this.#rehearsal.catch(() => {});
  }

  /**
   * Checks that the command is the replica's machine, by loading it, and starts the standby.
   *
   * @throws {QemuError} what is different.
   */
  check(replica: Replica): Promise<void> {
    return this.#checking ??= this.#check(replica).finally(() => this.#checking = undefined);
  }

  async #check(replica: Replica): Promise<void> {
    this.#state = "checking";
    const begun = performance.now();
    const rehearsal = this.#rehearsal ?? this.#launch(false);
    this.#rehearsal = undefined;
    let instance: Instance | undefined;
    try {
      instance = await rehearsal;
      const { client, socket } = instance;
      const capabilities = await this.#compare(client, replica);
      if (capabilities === undefined) return;
      // Nothing of the rehearsal is to be seen outside: no announcement, no lock on an image.
      await client.execute("migrate-set-parameters", { "announce-rounds": 0 });
      await awaitState(client, capabilities, socket);
      await sendState(client, socket, replica.compose(this.#addresses), REHEARSAL_MS);
      log.info("the standby loads this machine; checked in {ms} ms", {
        ms: Math.round(performance.now() - begun),
      });
    } catch (error) {
      this.#state = "none";
      throw await this.#explain(error, instance);
    } finally {
      if (instance !== undefined) await this.#end(instance);
    }
    this.#needsCheck = false;
    this.#start();
  }

  /** @returns The capabilities of a load; none where QEMU cannot do it, and activation is cold. */
  async #compare(client: QmpClient, replica: Replica): Promise<string[] | undefined> {
    const type = await client.execute("qom-get", { path: "/machine", property: "type" });
    const machine = String(type).replace(/-machine$/, "");
    if (replica.machine !== undefined && replica.machine !== "unnamed") {
      if (machine !== replica.machine) {
        throw mismatch(`its machine type is ${machine}, and the primary's is ${replica.machine}`);
      }
    }
    const hmp = async (line: string) =>
      String(await client.execute("human-monitor-command", { "command-line": line }));
    compareBlocks(replica.blocks, parseRamBlocks(await hmp("info ramblock")));
    const addresses = parseBlockAddresses(await hmp("info mtree"));
    const { shared } = this.#plan(true, "");
    this.#addresses = new Map(
      shared.map(({ name }) => [name, addresses.get(name.replace(/^\/objects\//, "")) ?? 0]),
    );
    const known = await client.execute("query-migrate-capabilities") as { capability: string }[];
    const has = (name: string) => known.some(({ capability }) => capability === name);
    if (!has("x-ignore-shared")) {
      this.#goCold("this QEMU has no x-ignore-shared");
      return undefined;
    }
    return ["events", "x-ignore-shared", "late-block-activate"].filter(has);
  }

  /**
   * Loads the replica's devices, and lets the VM run.
   *
   * @param runs Whether the VM ran at the primary: one that was paused stays so.
   * @returns The running QEMU; `undefined` where there is none to be had, and none is left.
   * @throws {RanAndEnded} if it ended after it was told to run.
   * @throws {QemuError} if the command is another machine.
   */
  async activate(
    replica: Replica,
    runs: boolean,
  ): Promise<StreamConsumer & LoadTimes | undefined> {
    await this.#checking;
    if (this.#needsCheck && this.#state !== "cold") await this.check(replica);
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<void>((resolve) => timer = setTimeout(resolve, READY_MS));
    while (this.#state === "starting" && !this.#closed) {
      if (await Promise.race([this.#starting.then(() => true), late.then(() => false)])) continue;
      this.#reason = `it was not ready within ${READY_MS} ms`;
      break;
    }
    clearTimeout(timer);
    const instance = this.#state === "ready" ? this.#instance : undefined;
    if (instance === undefined) {
      this.#goCold(this.#reason ?? "it is not running");
      await this.#stop();
      return undefined;
    }
    const { process, client, socket } = instance;
    this.#state = "loading";
    let told = false;
    try {
      await sendState(client, socket, replica.compose(this.#addresses), LOAD_MS);
      const loadedAt = performance.now();
      await process.keep();
      let runningAt = loadedAt;
      if (runs) {
        const resumed = client.waitEvent("RESUME", LOAD_MS);
        resumed.catch(() => {});
        told = true;
        await client.execute("cont", undefined, { timeoutMs: LOAD_MS });
        await resumed;
        runningAt = performance.now();
      }
      this.#state = "running";
      // Who must connect has, and from here on nobody is sure to be there to remove them.
      await Deno.remove(this.#folder, { recursive: true }).catch(() => {});
      client.closed.then(() => {}, () => {});
      return {
        exitCode: process.exitCode,
        kill: () => void process.kill().catch(() => {}),
        loadedAt,
        runningAt,
      };
    } catch (error) {
      const why = await this.#explain(error, instance);
      await this.#stop();
      if (told) {
        throw new RanAndEnded("--standby", "write", `it ended as it began to run: ${why.message}`, {
          hint: "the guest may have run for a moment, so its memory is lost: start it anew",
        });
      }
      this.#goCold(why.message);
      return undefined;
    }
  }

  /** Ends every process, and removes the sockets. A VM that runs is its owner's to end. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#rehearsal?.catch(() => {});
    if (this.#state !== "running") await this.#stop();
    await this.#instance?.client.close();
    await Deno.remove(this.#folder, { recursive: true }).catch(() => {});
  }

  /** Ends processes without waiting for anything; for the end of everything. */
  killNow(): void {
    if (this.#state === "running") return;
    for (const process of this.#processes) process.kill().catch(() => {});
  }

  #goCold(reason: string): void {
    this.#state = "cold";
    this.#reason = reason;
    this.#needsCheck = false;
    log.warn("no warm standby, activation is cold: {reason}", { reason });
  }

  #start(): void {
    this.#state = "starting";
    this.#starting = this.#startNow();
  }

  async #startNow(): Promise<void> {
    let instance: Instance | undefined;
    try {
      instance = await this.#launch(true);
      const { client, socket } = instance;
      await awaitState(client, ["events", "x-ignore-shared"], socket);
      this.#instance = instance;
      this.#state = "ready";
      this.#failures = 0;
      log.info("standby ready, process {pid}", { pid: instance.process.pid });
      const ready = instance;
      client.closed.then(() => this.#died(ready));
    } catch (error) {
      const why = await this.#explain(error, instance);
      if (instance !== undefined) await this.#end(instance);
      this.#restart(why.message);
    }
  }

  async #died(instance: Instance): Promise<void> {
    if (this.#instance !== instance || this.#state !== "ready" || this.#closed) return;
    this.#state = "starting";
    this.#starting = (async () => {
      const { message } = await instance.process.failure("start");
      this.#instance = undefined;
      await this.#end(instance);
      this.#restart(message.replace("it does not start", "it has ended"));
    })();
    await this.#starting;
  }

  #restart(reason: string): void {
    if (this.#closed || this.#state !== "starting") return;
    this.#reason = reason;
    this.#restarts++;
    const waitMs = RESTART_MS[Math.min(this.#failures++, RESTART_MS.length - 1)];
    log.warn("standby lost: {reason}; started again in {waitMs} ms", { reason, waitMs });
    this.#starting = new Promise<void>((resolve) => {
      this.#restartTimer = setTimeout(() => {
        if (this.#closed || this.#state !== "starting") return resolve();
        this.#startNow().then(resolve);
      }, waitMs);
    });
  }

  #plan(share: boolean, qmpPath: string) {
    return planStandby(this.#command, this.#files, { share, qmpPath });
  }

  async #launch(share: boolean): Promise<Instance> {
    const name = `${this.#folder}/${this.#launches++}`;
    const { command } = this.#plan(share, `${name}.qmp`);
    const process = StandbyProcess.start(command, `${name}.qmp`, (line) => {
      log.info("standby: {line}", { line });
    });
    this.#processes.add(process);
    process.exitCode.then(() => this.#processes.delete(process));
    try {
      return { process, client: await process.connect(), socket: `${name}.in` };
    } catch (error) {
      await process.kill();
      throw error;
    }
  }

  /** @throws {TransportError} if a process does not end. */
  async #stop(): Promise<void> {
    clearTimeout(this.#restartTimer);
    const instance = this.#instance;
    this.#instance = undefined;
    await instance?.client.close();
    await Promise.all([...this.#processes].map((process) => process.kill()));
  }

  async #end({ process, client }: Instance): Promise<void> {
    await client.close();
    await process.kill();
  }

  /** QEMU's own last words are the better reason, where it has ended. */
  async #explain(error: unknown, instance: Instance | undefined): Promise<KemariError> {
    if (error instanceof QemuError && error.errorClass !== "GenericError") return error;
    if (instance !== undefined && !(error instanceof QemuError)) {
      await Promise.race([
        instance.process.exitCode,
        new Promise((resolve) => setTimeout(resolve, 200)),
      ]);
      if (instance.process.hasEnded) return await instance.process.failure("load");
    }
    if (error instanceof KemariError) return error;
    return new TransportError("--standby", "write", String((error as Error).message ?? error), {
      party: "standby",
    });
  }
}
