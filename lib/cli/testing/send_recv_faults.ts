/** For tests: what can go wrong between `kemari send` and `kemari recv`, over any link. */
import assert from "node:assert/strict";
import { KemariProcess, type StartOptions } from "../../lab/program/kemari_process.ts";
import { loadStream } from "../../lab/recording/streams.ts";
import { vmStateOf } from "../../lab/vms/vm_state.ts";
import { concat } from "../../qemu/testing/synthetic_stream.ts";

const STREAM = loadStream("plain-7.2-bios");
const OTHER = loadStream("plain-11.1-bios");
/** Silence as long as this is waited for, and may not come by itself. */
const QUICK = ["--heartbeat", "50ms", "--grace", "1500ms"];

/** How a peer's death shows at the other end. */
const GONE = /connection reset|reader is gone|closed the connection|it was cut/;

async function inFolder(body: (folder: string) => Promise<void>) {
  const folder = await Deno.makeTempDir({ prefix: "kemari-faults-" });
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function failover(control: string, ...options: string[]) {
  return new KemariProcess(["failover", control, ...options]).ended();
}

/**
 * Declares the tests.
 *
 * @param over The link's name, in front of a test's.
 * @param security What both ends are told of it.
 */
export function testFaults(over: string, security: readonly string[]): void {
  const kemari = ([command, ...words]: readonly string[], options?: StartOptions) =>
    new KemariProcess([command, ...words, ...security], options);

  /** Sends what is in `bytes` to an address; it ends by itself. */
  async function sendBytes(bytes: Uint8Array, ...args: string[]) {
    await using send = kemari(["send", ...args], { stdin: "piped" });
    await send.write(bytes);
    await send.closeStdin();
    return await send.ended();
  }

  Deno.test(`${over}bad streams: exit 3, what and where, and recv waits for a better one`, () =>
    inFolder(async (folder) => {
      const socket = `unix:${folder}/s`;
      // What is behind the last one's whole stream is at fault; that VM is kept, and OTHER is not it.
      await using recv = kemari(["recv", socket, "--replace"]);
      await recv.listening();
      const version = STREAM.slice();
      version[7] = 2;
      const cases: [Uint8Array, RegExp][] = [
        [new Uint8Array(0), /offset 0: there is no stream: stdin is empty \(truncated\)\nhint: /],
        [new TextEncoder().encode("garbage, no stream"), /offset 0: .*bad-magic/],
        [version, /offset 4: .*version 2.*bad-version/],
        [STREAM.subarray(0, 3), /offset 3: .*truncated/],
        [STREAM.subarray(0, 100_000), /offset 100000: .*ram.*truncated/],
        [STREAM.subarray(0, STREAM.length - 1), /\((truncated|unsupported)\)/],
        [concat(STREAM, "more"), /bad-magic|bad-order|bad-value/],
      ];
      for (const [bytes, message] of cases) {
        const { code, stdout, stderr } = await sendBytes(bytes, socket);
        assert.deepEqual([code, stdout.length], [3, 0], stderr);
        assert.match(stderr, message);
      }
      assert.equal(recv.stdoutBytes, 0);
      assert.equal((await sendBytes(OTHER, socket)).code, 0);
      const { code, stdout } = await recv.ended();
      assert.equal(code, 0);
      assert.deepEqual(vmStateOf(stdout), vmStateOf(OTHER));
    }));

  Deno.test(`${over}a receiver that is stopped is noticed after --grace`, () =>
    inFolder(async (folder) => {
      const socket = `unix:${folder}/s`;
      await using recv = kemari(["recv", socket, ...QUICK]);
      await recv.listening();
      await using send = kemari(["send", socket, ...QUICK], { stdin: "piped" });
      await recv.waitFor(/sender connected/);
      recv.signal("SIGSTOP");
      // More than any buffer between the two holds: QEMU is made to wait, not lost.
      const feeding = (async () => {
        while (await send.write(STREAM));
      })();
      const { code, stderr } = await send.ended();
      assert.equal(code, 4);
      assert.match(stderr, /nothing was heard from the secondary/);
      await feeding;
      recv.signal("SIGCONT");
      await recv.waitFor(/sender lost/);
      assert.equal(recv.stdoutBytes, 0);
    }));

  Deno.test(`${over}sender killed in a transaction: failover gives exactly the committed one`, () =>
    inFolder(async (folder) => {
      const socket = `unix:${folder}/s`;
      const control = `${folder}/c`;
      await using recv = kemari(["recv", socket, "--control", control]);
      await recv.listening();
      await using send = kemari(["send", socket], { stdin: "piped" });
      await send.write(concat(STREAM, OTHER.subarray(0, 300_000)));
      await recv.waitFor(/first transaction committed/);
      send.signal("SIGKILL");
      await recv.waitFor(/sender lost: .*; keeping transaction 1/);
      assert.equal(recv.stdoutBytes, 0);

      // Another sender comes, and it dies as well.
      await using next = kemari(["send", socket], { stdin: "piped" });
      await next.write(OTHER.subarray(0, 500_000));
      await recv.waitFor(/sender connected[^]*sender connected/);
      next.signal("SIGKILL");
      await recv.waitFor(/sender lost[^]*sender lost/);

      // Its VM may have gone on since the first one's death.
      const plain = await failover(control);
      assert.equal(plain.code, 4);
      assert.match(plain.stderr, /not the VM's last state.*\nhint: .*--stale/);
      assert.equal((await failover(control, "--stale")).code, 0);
      const { code, stdout, stderr } = await recv.ended();
      assert.equal(code, 0);
      assert.deepEqual(vmStateOf(stdout), vmStateOf(STREAM), stderr);
      assert.deepEqual([...Deno.readDirSync(folder)], []);
    }));

  Deno.test(`${over}receiver killed in a transaction: the sender ends at once`, () =>
    inFolder(async (folder) => {
      const socket = `unix:${folder}/s`;
      await using recv = kemari(["recv", socket]);
      await recv.listening();
      await using send = kemari(["send", socket], { stdin: "piped" });
      await send.write(STREAM.subarray(0, 300_000));
      await recv.waitFor(/sender connected/);
      recv.signal("SIGKILL");
      const { code, stderr } = await send.ended();
      assert.equal(code, 4);
      assert.match(stderr, GONE);
    }));

  Deno.test(`${over}a sender gives up a transaction that is too large, and says so`, () =>
    inFolder(async (folder) => {
      const socket = `unix:${folder}/s`;
      await using recv = kemari(["recv", socket, "--max-transaction", "100K"]);
      await recv.listening();
      const { code, stderr } = await sendBytes(STREAM, socket);
      assert.equal(code, 3);
      assert.match(
        stderr,
        /transaction 1 has more than the 102400 bytes of pages .*\nhint: raise recv's --max-transaction/,
      );
      // Through pipes too.
      const words = [Deno.execPath(), "run", "-A", "--no-check", "--quiet"].join(" ");
      const main = new URL("../../../main.ts", import.meta.url).pathname;
      const exec = `exec:${words} ${main} recv stdio: ${
        security.join(" ")
      } --max-transaction 100K --exec cat`;
      const piped = await sendBytes(STREAM, exec);
      assert.equal(piped.code, 3, piped.stderr);
      assert.match(piped.stderr, /kemari: .*transaction 1 has more than the 102400 bytes/);
    }));

  Deno.test(`${over}two senders: the second is refused, the first goes on`, () =>
    inFolder(async (folder) => {
      const socket = `unix:${folder}/s`;
      await using recv = kemari(["recv", socket]);
      await recv.listening();
      await using first = kemari(["send", socket], { stdin: "piped" });
      await first.write(STREAM.subarray(0, 200_000));
      await recv.waitFor(/sender connected/);
      const second = await sendBytes(STREAM, socket);
      assert.equal(second.code, 3);
      assert.match(second.stderr, /another sender is being served/);
      await first.write(STREAM.subarray(200_000));
      await first.closeStdin();
      assert.equal((await first.ended()).code, 0);
      const { stdout } = await recv.ended();
      assert.deepEqual(vmStateOf(stdout), vmStateOf(STREAM));
    }));

  Deno.test(`${over}a sender that comes back sends what has changed, and no more`, () =>
    inFolder(async (folder) => {
      const socket = `unix:${folder}/s`;
      await using recv = kemari(["recv", socket, "--log-format", "json"]);
      await recv.waitFor(/listening/);
      await using first = kemari(["send", socket], { stdin: "piped" });
      await first.write(STREAM);
      await recv.waitFor(/first transaction committed/);
      first.signal("SIGINT");
      assert.equal((await first.ended()).code, 130);
      await recv.waitFor(/sender lost/);
      const again = await sendBytes(STREAM, socket, "--log-format", "json");
      assert.equal(again.code, 0, again.stderr);
      const { stdout, stderr } = await recv.ended();
      assert.deepEqual(vmStateOf(stdout), vmStateOf(STREAM));
      for (const line of (stderr + again.stderr).trimEnd().split("\n")) {
        const record = JSON.parse(line);
        assert.deepEqual(Object.keys(record).slice(0, 4), ["time", "level", "logger", "message"]);
      }
      assert.match(
        again.stderr,
        /handed over after transaction 2: \d+ (B|KiB) sent|"bytes":"[\d.]+ KiB"/,
      );
    }));

  Deno.test(`${over}--on-loss exit: the reason, and exit 4`, () =>
    inFolder(async (folder) => {
      const socket = `unix:${folder}/s`;
      await using recv = kemari(["recv", socket, "--on-loss", "exit"]);
      await recv.listening();
      await using send = kemari(["send", socket], { stdin: "piped" });
      await send.write(STREAM.subarray(0, 300_000));
      await recv.waitFor(/sender connected/);
      send.signal("SIGKILL");
      const { code, stdout, stderr } = await recv.ended();
      assert.deepEqual([code, stdout.length], [4, 0], stderr);
      assert.match(stderr, GONE);
      assert.deepEqual([...Deno.readDirSync(folder)], []);
    }));

  Deno.test(`${over}recv whose QEMU has gone says so at once, not when it is needed`, () =>
    inFolder(async (folder) => {
      const fifo = `${folder}/fifo`;
      await new Deno.Command("mkfifo", { args: [fifo] }).output();
      const reader = Deno.open(fifo, { read: true });
      await using recv = kemari(["recv", `unix:${folder}/s`], { stdout: { path: fifo } });
      const qemu = await reader;
      await recv.listening();
      await using send = kemari(["send", `unix:${folder}/s`], { stdin: "piped" });
      await send.write(STREAM);
      await recv.waitFor(/first transaction committed/);
      qemu.close();
      const { code, stderr } = await recv.ended();
      assert.equal(code, 4);
      assert.match(stderr, /stdout: the process that was to take the VM has gone\nhint: /);
      assert.equal((await send.ended()).code, 4);
    }));
}
