/** `unix:PATH` means what it says in every command that is given a control socket or a monitor. */
import assert from "node:assert/strict";
import { BarePair } from "../lab/testing/bare_pair.ts";
import { runKemari } from "../lab/program/run_kemari.ts";
import { KemariProcess } from "../lab/program/kemari_process.ts";

Deno.test("e2e: unix:PATH for --qmp and --control, at every command that takes one", async () => {
  await using pair = await BarePair.boot("11.1", {
    accelerator: "tcg",
    timer: "apic",
  });
  const recvControl = `unix:${pair.recvControl}`;
  const recv = pair.own(
    new KemariProcess(["recv", pair.link, "--control", recvControl, "--exec", "cat >/dev/null"]),
  );
  await recv.listening();
  assert.ok(Deno.lstatSync(pair.recvControl).isSocket);
  const monitor = `unix:${pair.primary.qmpPath},server=on,wait=off`;
  const doctor = await runKemari(["doctor", "--qmp", monitor]);
  assert.equal(doctor.code, 0, doctor.stderr);
  const sendControl = `unix:${pair.sendControl}`;
  const words = ["protect", "--qmp", monitor, pair.link, "--control", sendControl];
  const protect = pair.own(new KemariProcess([...words, "--sync-interval", "20"]));
  await pair.syncs(5);
  for (const socket of [recvControl, sendControl]) {
    const status = await runKemari(["status", socket]);
    assert.equal(status.code, 0, status.stderr);
  }
  const failover = await runKemari(["failover", sendControl]);
  assert.deepEqual(failover.code, 4);
  assert.match(failover.stderr, /this end is a sender/);
  // Killed, its guardian finds the monitor too.
  protect.signal("SIGKILL");
  await protect.ended();
  await pair.assertRunning(pair.primary);
  const taken = await runKemari(["failover", recvControl]);
  assert.equal(taken.code, 0, taken.stderr);
});

Deno.test("another kind of address for them is refused, by a hint that is true", async () => {
  const control = /no control socket\nhint: .*PATH or unix:PATH/;
  const qmp = /--qmp .*\nhint: .*PATH, unix:PATH, HOST:PORT/;
  const cases: [string[], RegExp][] = [
    [["status", "host:4000"], control],
    [["failover", "exec:ssh host"], control],
    [["recv", "127.0.0.1:0", "--control", "tcp:localhost:4000", "--exec", "cat"], control],
    [["protect", "h:1", "--qmp", "/nowhere", "--control", "localhost:4000"], control],
    [["protect", "h:1", "--qmp", "/nowhere", "--via", "localhost:4000"], control],
    [["protect", "h:1", "--qmp", "exec:ssh host"], qmp],
    [["doctor", "--qmp", "stdio:"], qmp],
    [["send", "127.0.0.1:1", "--qmp", "exec:ssh host"], qmp],
    [["send", "127.0.0.1:1", "--control", "localhost:4000"], control],
  ];
  for (const [words, message] of cases) {
    const { code, stderr } = await runKemari(words);
    assert.deepEqual([code, words], [2, words], stderr);
    assert.match(stderr, message);
  }
});
