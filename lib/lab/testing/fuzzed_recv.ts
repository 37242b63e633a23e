/** For tests: a real `kemari recv`, and made-up senders that connect to it one after another. */
import assert from "node:assert/strict";
import { MadeUpSender } from "../../replica/testing/made_up_sender.ts";
import { Random } from "../../replica/testing/random.ts";
import { type EndStatus, isWhole } from "../../control/end_status.ts";
import { askStatus } from "../../host/system/ask_control.ts";
import { never } from "../../host/system/never.ts";
import { KemariProcess } from "../program/kemari_process.ts";
import { WorkFolder } from "../program/work_folder.ts";

const DISK_BYTES = 4 * 4096;
/** Frames of one session, at the most. */
const MAX_FRAMES = 200;
/** The longest that one session may last: whoever says nothing more is given up before. */
const SESSION_MS = 10_000;

/** What a process has of what runs out. */
export interface Holdings {
  readonly residentBytes: number;
  readonly descriptors: number;
}

export class FuzzedRecv implements AsyncDisposable {
  readonly #random: Random;
  readonly #folder = new WorkFolder();
  readonly #process: KemariProcess;
  /** What the NIC leads to: nobody is there. */
  readonly #network: Deno.Listener;
  sessions = 0;
  frames = 0;

  private constructor(seed: number) {
    this.#random = new Random(seed);
    const { path } = this.#folder;
    Deno.writeFileSync(`${path}/image`, new Uint8Array(DISK_BYTES));
    this.#network = Deno.listen({ transport: "unix", path: `${path}/out` });
    this.#process = new KemariProcess([
      "recv",
      `unix:${path}/link`,
      ...["--control", `${path}/control`, "--max-transaction", "256K", "--grace", "500ms"],
      ...["--disk", `disk0=${path}/image,unix:${path}/nbd`],
      ...["--net", `net0=unix:${path}/in,unix:${path}/out`],
    ]);
  }

  static async start(seed: number): Promise<FuzzedRecv> {
    const fuzzed = new FuzzedRecv(seed);
    try {
      await fuzzed.#process.listening();
      return fuzzed;
    } catch (error) {
      await fuzzed[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** What the process has now. */
  holdings(): Holdings {
    const { pid } = this.#process;
    const status = Deno.readTextFileSync(`/proc/${pid}/status`);
    const [, kilobytes] = /VmRSS:\s+(\d+) kB/.exec(status)!;
    return {
      residentBytes: Number(kilobytes) * 1024,
      descriptors: [...Deno.readDirSync(`/proc/${pid}/fd`)].length,
    };
  }

  /** Carries one session out. @throws if recv does not live through it. */
  async session(): Promise<void> {
    const random = this.#random;
    this.sessions++;
    const before = await this.#status();
    const link = await Deno.connect({ transport: "unix", path: `${this.#folder.path}/link` });
    const made = new MadeUpSender(random, before.lastCommitted, {
      disk: "disk0",
      diskBytes: DISK_BYTES,
      net: "net0",
    });
    const timer = setTimeout(() => link.close(), SESSION_MS);
    let isOver = false;
    const reading = (async () => {
      const buffer = new Uint8Array(64 * 1024);
      for (;;) {
        const count = await link.read(buffer).catch(() => null);
        if (count === null) break;
        made.heard(buffer.slice(0, count));
      }
      isOver = true;
    })();
    try {
      for (let i = 0; i < MAX_FRAMES && !isOver; i++) {
        const { name, bytes } = made.next();
        // The VM would be given away, and recv be over.
        if (name === "HANDOVER") continue;
        this.frames++;
        for (let at = 0; at < bytes.length;) at += await link.write(bytes.subarray(at));
      }
    } catch {
      // It was refused.
    } finally {
      clearTimeout(timer);
      try {
        link.close();
      } catch {
        // It was closed by the timer.
      }
      await reading;
    }
    assert.ok(
      (await this.#status()).lastCommitted >= before.lastCommitted,
      "a commit was taken back",
    );
  }

  async #status(): Promise<EndStatus> {
    const status = await askStatus(`${this.#folder.path}/control`, never);
    assert.ok(isWhole(status), "recv is at work");
    return status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process[Symbol.asyncDispose]();
    this.#network.close();
    this.#folder[Symbol.dispose]();
  }
}
