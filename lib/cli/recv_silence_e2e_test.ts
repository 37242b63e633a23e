/** Ends that are stopped (SIGSTOP) for less and for more than the grace time. */
import assert from "node:assert/strict";
import { sideBySide } from "../lab/testing/side_by_side.ts";
import { loadStream } from "../lab/recording/streams.ts";
import { vmStateOf } from "../lab/vms/vm_state.ts";
import { KemariProcess } from "../lab/program/kemari_process.ts";
import { delay } from "../host/system/delay.ts";

const STREAM = loadStream("plain-11.1-bios");
const QUICK = ["--heartbeat", "50", "--grace", "2s"];
/** Not too long for {@link QUICK}, even where the machine adds its own second; and too long. */
const SHORT_MS = 700;
const LONG_MS = 2500;
/** For those who were stopped to say that they live. */
const AWAKE_MS = 150;
const PATIENT = ["--heartbeat", "50", "--grace", "20s"];

/** A receiver that takes over on loss, and a sender with one transaction committed that stays. */
async function linked(
  body: (recv: KemariProcess, send: KemariProcess) => Promise<void>,
  { sender = PATIENT, receiver = QUICK } = {},
) {
  const folder = await Deno.makeTempDir({ prefix: "kemari-silence-" });
  try {
    const loss = ["--on-loss", "activate", "--fence", "none"];
    await using recv = new KemariProcess(["recv", `unix:${folder}/s`, ...loss, ...receiver]);
    await recv.listening();
    await using send = new KemariProcess(["send", `unix:${folder}/s`, ...sender], {
      stdin: "piped",
    });
    await send.write(STREAM);
    await recv.waitFor(/first transaction committed/);
    await body(recv, send);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Hands over, which only works if nobody was given up. */
async function assertHandover(recv: KemariProcess, send: KemariProcess) {
  await send.closeStdin();
  assert.equal((await send.ended()).code, 0);
  const { code, stdout, stderr } = await recv.ended();
  assert.equal(code, 0, stderr);
  assert.match(stderr, /after handover/);
  assert.doesNotMatch(stderr, /primary lost/);
  assert.deepEqual(vmStateOf(stdout), vmStateOf(STREAM));
}

sideBySide("e2e: silence between the ends", (scene) => {
  scene(
    "a sender that is stopped for less than the grace time is not given up",
    () =>
      linked(async (recv, send) => {
        for (let round = 0; round < 2; round++) {
          send.signal("SIGSTOP");
          await delay(SHORT_MS);
          send.signal("SIGCONT");
          await delay(AWAKE_MS);
        }
        await assertHandover(recv, send);
      }),
  );

  scene(
    "a sender that is stopped for more than the grace time is lost, and learns it",
    () =>
      linked(async (recv, send) => {
        send.signal("SIGSTOP");
        const { code, stdout, stderr } = await recv.ended();
        assert.equal(code, 0, stderr);
        assert.match(stderr, /primary lost: .*nothing was heard from the sender for \d+ ms/);
        assert.match(stderr, /activated transaction 1, cold, after loss: fenced [\d.]+, applied/);
        assert.deepEqual(vmStateOf(stdout), vmStateOf(STREAM));
        send.signal("SIGCONT");
        const sender = await send.ended();
        assert.equal(sender.code, 3);
        assert.match(sender.stderr, /the receiver refused .*nothing was heard from the sender/);
      }),
  );

  scene(
    "a receiver that was stopped itself does not blame the sender, which went on speaking",
    () =>
      linked(async (recv, send) => {
        for (let round = 0; round < 2; round++) {
          recv.signal("SIGSTOP");
          await delay(LONG_MS);
          recv.signal("SIGCONT");
          await delay(AWAKE_MS);
        }
        await assertHandover(recv, send);
      }),
  );

  scene(
    "a sender that was stopped itself does not blame the receiver",
    () =>
      linked(async (recv, send) => {
        for (let round = 0; round < 2; round++) {
          send.signal("SIGSTOP");
          await delay(LONG_MS);
          send.signal("SIGCONT");
          await delay(AWAKE_MS);
        }
        await assertHandover(recv, send);
      }, { sender: QUICK, receiver: PATIENT }),
  );

  scene(
    "a sender whose process dies is lost at once, whatever the grace time",
    () =>
      linked(async (recv, send) => {
        send.signal("SIGKILL");
        await recv.waitFor(/primary lost: .*(the sender closed the connection|reset by the peer)/);
        await recv.ended();
      }),
  );
});
