/** For tests on real QEMU: a VM to protect, kemari at both ends, and what their guests count. */
import assert from "node:assert/strict";
import { askFailover, askStatus } from "../../host/system/ask_control.ts";
import { askReceiver, askSender } from "../program/ask_end.ts";
import type { ReceiverStatus } from "../../control/receiver_status.ts";
import type { SenderStatus } from "../../control/sender_status.ts";
import { countsOf, type GuestConsole } from "../guest/guest_console.ts";
import { KemariProcess } from "../program/kemari_process.ts";
import { never } from "../../host/system/never.ts";
import { until } from "../program/until.ts";

/** A VM as far as its guest can be heard counting. */
export interface CountingVm {
  readonly name: string;
  readonly console: GuestConsole;
}

/** A VM that can be protected. */
export interface PairedVm extends CountingVm, AsyncDisposable {
  readonly qmpPath: string;
}

/** A busy machine has been silent for 911 ms; who waits for a loss by silence says less. */
export const PATIENCE = ["--grace", "3s"];

/** What does not depend on the guest: whose VM it is, and how it is made, is a subclass's. */
export abstract class KemariPair<V extends PairedVm> implements AsyncDisposable {
  readonly #owned: AsyncDisposable[] = [];
  #fifo = "";

  /**
   * @param folder For the sockets of both ends; removed at the end.
   * @param primary Owned from now on.
   * @param countStep What each number that the guest says is above the one before.
   */
  protected constructor(
    readonly folder: string,
    readonly primary: V,
    private readonly countStep = 1,
  ) {
    this.#owned.push(primary);
  }

  /** Starts a QEMU that is what the primary is and waits for a stream on its stdin. */
  protected abstract startSecondary(stdin: { readonly path: string }): Promise<V>;

  /** Where the receiver listens, and the sender finds it. */
  get link(): string {
    return `unix:${this.folder}/link`;
  }
  /** Where the receiver listens instead. */
  listen: string | undefined;
  /** What the sender is told instead: its target, and options that belong to that. */
  target: readonly string[] | undefined;
  get recvControl(): string {
    return `${this.folder}/recv`;
  }
  get sendControl(): string {
    return `${this.folder}/send`;
  }

  /** Starts `kemari recv` with its control socket, stdout going into the fifo. */
  async recv(...options: string[]): Promise<KemariProcess> {
    // A fifo of its own: an earlier secondary may still hold the last one.
    const fifo = this.#fifo = `${this.folder}/takeover-${this.#owned.length}`;
    await new Deno.Command("mkfifo", { args: [fifo] }).output();
    const process = this.own(
      new KemariProcess(
        [
          "recv",
          this.listen ?? this.link,
          "--control",
          this.recvControl,
          ...PATIENCE,
          ...options,
        ],
        { stdout: { path: fifo } },
      ),
    );
    return process;
  }

  /** Starts a QEMU that waits for recv's stream on its stdin; recv listens when it returns. */
  async secondary(): Promise<V> {
    const vm = this.own(await this.startSecondary({ path: this.#fifo }));
    await this.receiverStatus();
    return vm;
  }

  /** Starts `kemari recv` with a standby, and waits until it listens or has ended. */
  async recvWithStandby(
    guest: { readonly command: string },
    ...options: string[]
  ): Promise<KemariProcess> {
    const words = ["recv", this.link, "--control", this.recvControl, "--standby", guest.command];
    const process = this.own(new KemariProcess([...words, ...PATIENCE, ...options]));
    await process.listening();
    return process;
  }

  /** Starts `kemari protect` on the primary. */
  protect(...options: string[]): KemariProcess {
    const words = ["protect", "--qmp", this.primary.qmpPath, ...this.target ?? [this.link]];
    const control = ["--control", this.sendControl];
    return this.own(new KemariProcess([...words, ...control, ...PATIENCE, ...options]));
  }

  own<T extends AsyncDisposable>(thing: T): T {
    this.#owned.push(thing);
    return thing;
  }

  /** Waits until the sender has committed so many transactions since it started. */
  syncs(count: number): Promise<SenderStatus> {
    return this.#status<SenderStatus>(this.sendControl, askSender, ({ syncs }) => syncs >= count);
  }

  receiverStatus(
    accept: (status: ReceiverStatus) => boolean = ({ state }) => state !== "starting",
  ): Promise<ReceiverStatus> {
    return this.#status<ReceiverStatus>(this.recvControl, askReceiver, accept);
  }

  senderStatus(accept: (status: SenderStatus) => boolean): Promise<SenderStatus> {
    return this.#status<SenderStatus>(this.sendControl, askSender, accept);
  }

  /** Waits until the sender's side says that it is in this state, before its session or in it. */
  async senderIs(state: SenderStatus["state"]): Promise<void> {
    await this.#status(this.sendControl, askStatus, (status) => status.state === state);
  }

  /** The numbers that a VM's guest has said. */
  counts(vm: CountingVm): number[] {
    return countsOf(vm.console);
  }

  /** Checks that a VM's guest is running, by its next numbers. */
  async assertRunning(vm: CountingVm): Promise<void> {
    const before = this.counts(vm).at(-1) ?? 0;
    const wanted = before + 3 * this.countStep;
    await until(() => (this.counts(vm).at(-1) ?? 0) >= wanted, `${vm.name} to count on`);
  }

  /**
   * Checks that the count goes on in the secondary, without a gap.
   *
   * @param slack By how much it may have gone back, as numbers said: what came after the last
   *   committed checkpoint is counted again.
   */
  async assertCountsOn(secondary: CountingVm, slack: number): Promise<void> {
    const step = this.countStep;
    const last = this.counts(this.primary).at(-1)!;
    await until(() => this.counts(secondary).length >= 5, "the secondary to count");
    const after = this.counts(secondary);
    // The primary may have said the beginning of a line, of which the secondary says the end.
    const torn = secondary.console.lines[0].text.trim();
    const next = `count ${last + step}`.endsWith(torn) ? last + 2 * step : last + step;
    assert.ok(
      after[0] <= next && after[0] >= last - slack * step,
      `the primary was last heard at ${last}, the secondary first at ${after[0]}, behind "${torn}"`,
    );
    after.forEach((count, i) => assert.equal(count, after[0] + i * step, "a gap in the count"));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const thing of this.#owned.reverse()) await thing[Symbol.asyncDispose]();
    await Deno.remove(this.folder, { recursive: true });
  }

  async #status<Status>(
    socket: string,
    ask: (socket: string, signal: AbortSignal) => Promise<Status>,
    accept: (status: Status) => boolean,
  ): Promise<Status> {
    let status: Status | undefined;
    await until(async () => {
      try {
        status = await ask(socket, never);
      } catch {
        return false;
      }
      return accept(status);
    }, `${socket} to report what is wanted`);
    return status!;
  }
}

/** Asks a waiting receiver to activate. */
export async function failover(pair: { readonly recvControl: string }): Promise<void> {
  await askFailover(pair.recvControl, { signal: never });
}
