import { getLogger } from "@logtape/logtape";
import { afterPrimarySession, type NextStep } from "../../decisions/after_primary_session.ts";
import { waitAfterCancel } from "../../decisions/vm_fate.ts";
import { triggerCheckpoint } from "../../qmp/migration.ts";
import type { MigrationSupport } from "../../qmp/migration_support.ts";
import { compressionOf } from "../link/compress_settings.ts";
import type { SenderLinkSettings } from "../link/sender_link_settings.ts";
import { openLink } from "../link/open_link.ts";
import type { SenderLink } from "../link/sender_link.ts";
import { SOFTWARE } from "../system/software.ts";
import { MigrationChannel } from "../vm/migration_channel.ts";
import { StillVm } from "../vm/still_vm.ts";
import { endedBy, fateInWords } from "../vm/vm_end_words.ts";
import { askSecondary } from "./ask_secondary.ts";
import { CheckpointRequests } from "./checkpoint_requests.ts";
import { type Guardian, startGuardian } from "./guardian.ts";
import { protectByColo } from "./protect_colo.ts";
import type { ProtectContext, ProtectParts } from "./protect_context.ts";
import { letGo, type Parted, partFromSecondary, type Parting } from "./parting.ts";
import { protectBySnapshots } from "./protect_snapshots.ts";
import {
  connectSecondary,
  untilAwake,
  untilProtectable,
  type WaitsFor,
  waitsFor,
} from "./protect_waits.ts";
import type { ProtectableVm } from "./protectable_vm.ts";
import { ProtectionStatus } from "./protection_status.ts";
import { Retries } from "./retries.ts";

const log = getLogger(["kemari", "protect"]);

/** The states of a {@link Protection}. */
type ProtectionState =
  /** There was no session yet. */
  | { readonly at: "connecting" }
  /** There is a session, which may have to wait for the VM. */
  | { readonly at: "linked"; readonly link: SenderLink; readonly waits?: WaitsFor }
  /** A session is being ended: the secondary and QEMU are told. */
  | { readonly at: "parting" }
  /** The VM is unprotected until the next session. */
  | { readonly at: "unprotected"; readonly waits?: WaitsFor };

/** How a session has ended, and what follows. */
interface Ended {
  readonly parted: Parted;
  readonly step: NextStep;
  /** Whether the secondary had sent its HELLO. */
  readonly wasLinked: boolean;
}

/**
 * The protection of a VM: sessions with a secondary, one after another, until the protection fails
 * or is interrupted.
 *
 * ```text
 * connecting ──connect()──► linked ──any error──► parting ──► unprotected ──connect()──► linked
 *      └───────────any error────────────────────────▲ └──nothing to retry──► run() throws
 * ```
 *
 * To be run by run(), and closed in any case. The VM's monitor, its taps and the reactor stay the
 * caller's.
 */
export class Protection {
  readonly #parts: ProtectParts;
  readonly #vm: ProtectableVm;
  /** Temporary; the guardian knows it too. */
  readonly #folder: string;
  readonly #guardian: Guardian;
  readonly #still: StillVm;
  readonly #channel: MigrationChannel;
  readonly #requests: CheckpointRequests;
  readonly #retries: Retries;
  readonly #status: ProtectionStatus;
  readonly #linkSettings: SenderLinkSettings;
  /** The interval of checkpoints that nothing else asks for. */
  readonly #interval: { ms: number };
  #support: MigrationSupport;
  #state: ProtectionState = { at: "connecting" };
  /** The link of the present session, or of the last one. */
  #latest: SenderLink | undefined;
  /** When the present or last session began. */
  #begunAt = 0;
  /** How long the last wait was after somebody had ended QEMU's migration. */
  #cancelWaitMs = 0;
  /** Whether QEMU has been told that the VM is unprotected, or need not be told. */
  #isTold = true;

  private constructor(vm: ProtectableVm, parts: ProtectParts, folder: string) {
    const { line: { qmp, watch }, settings, target, reactor, taps } = parts;
    this.#parts = parts;
    this.#vm = vm;
    this.#folder = folder;
    this.#support = vm.support;
    this.#guardian = startGuardian(settings.qmp, settings.onSecondaryLoss, folder);
    this.#still = new StillVm(qmp, vm.support, folder);
    this.#channel = new MigrationChannel(reactor, qmp, folder);
    this.#interval = { ms: settings.syncIntervalMs };
    this.#retries = new Retries(target.text);
    this.#linkSettings = {
      ...settings,
      vm: vm.identity,
      compression: compressionOf(settings),
      taps,
      stream: vm.mode === "colo" ? "colo" : "snapshots",
      firstPassEnd: "told",
      software: settings.sessionName ? `${SOFTWARE} (${settings.sessionName})` : SOFTWARE,
    };
    this.#requests = new CheckpointRequests({
      ...{ reactor, watch, taps, settings, peer: target.text },
      // Snapshots poll the trigger themselves; in COLO QEMU is asked.
      ask: vm.mode === "colo" ? () => qmp.run(triggerCheckpoint(this.#interval.ms)) : undefined,
    });
    // After the requests, so that the session knows why the VM stands still.
    watch.follow({ stopped: () => this.#vmStopped(), resumed: () => this.#vmResumed() });
    this.#status = new ProtectionStatus(vm, parts, () => this.#stateInStatus());
    this.#status.begin();
  }

  /** Starts the guardian; nothing else happens to the VM before run(). */
  static async begin(vm: ProtectableVm, parts: ProtectParts): Promise<Protection> {
    return new Protection(vm, parts, await Deno.makeTempDir({ prefix: "kemari-" }));
  }

  get state(): ProtectionState {
    return this.#state;
  }

  /**
   * @throws why the protection has ended: the end of the VM or of QEMU, an interruption, a
   * secondary that is given up.
   */
  async run(): Promise<never> {
    for (let isFirst = true;; isFirst = false) {
      let error: unknown;
      try {
        await this.#protect(await this.#connect(isFirst), isFirst);
      } catch (cause) {
        error = cause;
      }
      await this.#carryOn(await this.#part(error, isFirst), error);
    }
  }

  /**
   * Closes everything that this object owns. If QEMU could not be told, the guardian goes on with
   * that.
   */
  async close(): Promise<void> {
    this.#requests.rest();
    this.#status.end();
    this.#latest?.close();
    await this.#latest?.unmark();
    this.#channel.close();
    if (!this.#isTold) return await this.#guardian.inherit();
    // Before the guardian goes: if this process is killed in between, nobody else would do it.
    await Deno.remove(this.#folder, { recursive: true }).catch(() => {});
    await this.#guardian.dismiss();
  }

  get #link(): SenderLink | undefined {
    return this.#state.at === "linked" ? this.#state.link : undefined;
  }

  /** Begins a session. @returns Resolves when the secondary has sent its HELLO. */
  async #connect(isFirst: boolean): Promise<SenderLink> {
    this.#begunAt = performance.now();
    const { target, guard, reactor, signal, taps, settings } = this.#parts;
    const peer = await connectSecondary(target, guard, reactor, signal, isFirst || !settings.retry);
    const link = await openLink(reactor, peer, this.#linkSettings, taps.images, signal);
    this.#latest = link;
    this.#state = { at: "linked", link };
    this.#status.show(link);
    this.#requests.begin(link);
    link.onFirstCommit = () => this.#retries.over();
    await reactor.run(() => link.ready, signal);
    this.#retries.connected(link.peerSoftware);
    return link;
  }

  /** Synchronizes the VM with the secondary. @throws when either side is lost. */
  async #protect(link: SenderLink, isFirst: boolean): Promise<never> {
    this.#interval.ms = this.#parts.settings.syncIntervalMs;
    // Somebody may have paused the VM while it was unprotected.
    if (!isFirst) await this.#untilProtectable(link);
    this.#begunAt = performance.now();
    const context = this.#context(link);
    return await (this.#vm.mode === "colo" ? protectByColo(context) : protectBySnapshots(context));
  }

  async #untilProtectable(link: SenderLink): Promise<void> {
    const { line, reactor, signal } = this.#parts;
    this.#support = await untilProtectable(line, reactor, signal, (runState) => {
      this.#state = { at: "linked", link, waits: waitsFor(runState) };
    });
    this.#state = { at: "linked", link };
  }

  /** Ends the session, if there is one: tells the secondary, then QEMU. */
  async #part(error: unknown, isFirst: boolean): Promise<Ended> {
    const { line, settings, taps } = this.#parts;
    const link = this.#link;
    this.#status.lookAtDevices();
    const wasLinked = link?.ready === true;
    this.#state = { at: "parting" };
    this.#requests.rest();
    this.#isTold = false;
    line.ignoreEnd();
    const parted = await partFromSecondary(error, link, this.#parting());
    this.#isTold = parted.told === true;
    this.#state = { at: "unprotected" };
    const step = afterPrimarySession({
      known: parted.known,
      fate: parted.fate,
      tries: { retry: settings.retry, wasLinked, isFirst, hasTaps: !taps.isEmpty },
      vm: parted.vm?.kind,
      heard: parted.heard,
    });
    return { parted, step, wasLinked };
  }

  /** Waits until the next session is due. @throws if there is to be none. */
  async #carryOn({ parted, step, wasLinked }: Ended, error: unknown): Promise<void> {
    const { line, reactor, signal, target } = this.#parts;
    const { vm } = parted;
    if (step.do === "fail") {
      if (step.with === "error") throw parted.error;
      throw endedBy(vm!, parted.error, wasLinked ? parted.heard : undefined, target.text);
    }
    line.heedEnd();
    if (parted.told === "later") await this.#tellQemuLater();
    switch (step.when) {
      case "again":
      case "again-later":
        return await this.#retries.wait(step.when, parted.known.end, error, reactor, signal);
      case "left-alone":
        this.#cancelWaitMs = waitAfterCancel(
          this.#cancelWaitMs,
          performance.now() - this.#begunAt,
        );
        log.warn(
          "{what}; the VM is here, unprotected, and is protected again in {seconds} s (to end a " +
            "protection, interrupt kemari protect)",
          { what: fateInWords(vm), seconds: this.#cancelWaitMs / 1000 },
        );
        return await reactor.sleep(this.#cancelWaitMs, signal);
      case "awake":
        // The next session waits for this.
        return;
    }
  }

  /** Tells QEMU later that the VM is unprotected: the end of COLO would harm a sleeping guest. */
  async #tellQemuLater(): Promise<void> {
    const { line, reactor, signal } = this.#parts;
    this.#state = { at: "unprotected", waits: "suspended" };
    await untilAwake(line, reactor, signal);
    line.ignoreEnd();
    this.#isTold = await letGo("continue", this.#parting()) === true;
    line.heedEnd();
  }

  /** A STOP was heard, which may be that of a checkpoint. */
  #vmStopped(): void {
    // If this process is killed, the guardian must not let the VM run either.
    if (this.#link?.primary.dialogue.isVmPaused) this.#guardian.decide("stop");
  }

  #vmResumed(): void {
    this.#still.resumed();
    this.#guardian.decide(this.#parts.settings.onSecondaryLoss);
  }

  /** The state to show instead of the session's own. */
  #stateInStatus(): WaitsFor | "unprotected" | undefined {
    switch (this.#state.at) {
      case "linked":
        return this.#state.waits;
      case "unprotected":
        return this.#state.waits ?? "unprotected";
      default:
        return "unprotected";
    }
  }

  #context(link: SenderLink): ProtectContext {
    const { line: { qmp, watch }, settings, reactor, signal } = this.#parts;
    return {
      ...{ reactor, settings, qmp, watch, link, signal },
      support: this.#support,
      trigger: this.#requests.trigger,
      still: this.#still,
      channel: this.#channel,
      interval: this.#interval,
      folder: this.#folder,
    };
  }

  #parting(): Parting {
    const { line: { qmp, watch }, settings, target, guard, reactor, taps, signal } = this.#parts;
    return {
      ...{ qmp, watch, reactor, taps, signal },
      onSecondaryLoss: settings.onSecondaryLoss,
      folder: this.#folder,
      still: this.#still,
      guardian: this.#guardian,
      ask: () => askSecondary(target, guard, this.#linkSettings, reactor),
      isQuiet: this.#retries.isFull,
    };
  }
}
