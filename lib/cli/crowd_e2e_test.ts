/** A thousand strangers at the door of a `kemari recv` that has a session. */
import assert from "node:assert/strict";
import { concat } from "../qemu/testing/synthetic_stream.ts";
import { encodeHeader } from "../txn/frame_header.ts";
import { TXN } from "../txn/wire.ts";
import { loadStream } from "../lab/recording/streams.ts";
import { KemariProcess } from "../lab/program/kemari_process.ts";
import { until } from "../lab/program/until.ts";
import { askStatus } from "../host/system/ask_control.ts";
import { DOOR_LIMITS } from "../host/door/antechamber.ts";

const STREAM = loadStream("plain-11.1-bios");
const CROWD = 1000;
/** Behind some seven of them the runtime has all the memory that it lets garbage fill (measured: 100 MB). */
const CROWDS = 14;
/** What memory may grow by then: less than two crowds would leave behind. */
const SLACK_BYTES = 64 * 2 ** 20;

/** The beginning of a HELLO as long as one may be. */
const BEGINNING = concat(
  encodeHeader({ command: TXN.HELLO, flags: 0, sequence: 0, transaction: 0, lengthBytes: 131072 }),
  new TextEncoder().encode("KEMARI\r\n"),
);
const GARBAGE = new Uint8Array(2000).fill(0x9a);

function openFiles(pid: number): number {
  return [...Deno.readDirSync(`/proc/${pid}/fd`)].length;
}

function residentBytes(pid: number): number {
  const [, kilobytes] = /VmRSS:\s+(\d+)/.exec(Deno.readTextFileSync(`/proc/${pid}/status`))!;
  return Number(kilobytes) * 1024;
}

/** Connections that say nothing, a byte now and then, or what no sender says. */
class Crowd implements AsyncDisposable {
  readonly #connections: Deno.Conn[] = [];
  #isOver = false;
  #dripping: Promise<void> = Promise.resolve();

  async gather(port: number): Promise<void> {
    for (let i = 0; i < CROWD; i++) {
      const connection = await Deno.connect({ port });
      this.#connections.push(connection);
      if (i % 3 === 1) await connection.write(GARBAGE).catch(() => {});
      if (i % 3 === 2) await connection.write(BEGINNING).catch(() => {});
    }
    this.#dripping = this.#drip();
  }

  async #drip(): Promise<void> {
    while (!this.#isOver) {
      for (const connection of this.#connections.filter((_, i) => i % 3 === 2)) {
        // Most of them have been closed by the other side.
        await connection.write(Uint8Array.of(0)).catch(() => {});
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true;
    await this.#dripping;
    for (const connection of this.#connections) connection.close();
  }
}

Deno.test("a thousand strangers cost a receiver neither its session, nor memory, nor the next sender", async () => {
  const folder = await Deno.makeTempDir({ prefix: "kemari-crowd-" });
  const control = `${folder}/ctl`;
  const signal = new AbortController().signal;
  try {
    await using recv = new KemariProcess(["recv", "127.0.0.1:0", "--control", control]);
    const address = await recv.listening();
    const port = Number(address.split(":").at(-1));
    const quietFiles = openFiles(recv.pid);
    await using first = new KemariProcess(["send", address], { stdin: "piped" });
    await first.write(STREAM);
    await recv.waitFor(/first transaction committed/);
    const usualFiles = openFiles(recv.pid);
    const residents: number[] = [];
    for (let round = 0; round < CROWDS; round++) {
      await using crowd = new Crowd();
      await crowd.gather(port);
      const most = usualFiles + DOOR_LIMITS.waiting + DOOR_LIMITS.leaving + 1;
      assert.ok(openFiles(recv.pid) <= most, `${openFiles(recv.pid)} descriptors`);
      residents.push(residentBytes(recv.pid));
      assert.equal((await askStatus(control, signal)).state, "receiving");
    }
    await until(() => openFiles(recv.pid) <= usualFiles, "all descriptors to be closed");
    assert.ok(residents.at(-1)! < residents[CROWDS / 2] + SLACK_BYTES, `${residents}`);
    {
      // The next sender is let in though they are all there again.
      await using crowd = new Crowd();
      await crowd.gather(port);
      first.signal("SIGTERM");
      await first.ended();
      await using next = new KemariProcess(["send", address], { stdin: "piped" });
      await next.write(STREAM);
      await until(async () => {
        const now = await askStatus(control, signal);
        return "lastCommitted" in now && now.lastCommitted === 2;
      }, "the next sender's first transaction");
      assert.doesNotMatch(next.stderr, /busy/);
      next.signal("SIGTERM");
      await next.ended();
    }
    await until(() => openFiles(recv.pid) <= quietFiles, "all descriptors to be closed");
    // They were told of, in a few lines.
    assert.ok(
      recv.stderr.split("\n").filter((line) => /no sender|to nothing/.test(line)).length < 9,
    );
    recv.signal("SIGTERM");
    await recv.ended();
    assert.match(recv.stderr, /\d+ more connections have come to nothing/);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
