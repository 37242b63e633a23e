import assert from "node:assert/strict";
import type { QmpCommand } from "../../qmp/codec.ts";
import type { QmpEvent } from "../../qmp/session.ts";
import type { QmpClient } from "./qmp_client.ts";
import { Reactor } from "../system/reactor.ts";
import { VmWatch } from "./vm_watch.ts";

/** A monitor that says what it is told to, and answers by these words or not at all. */
class ScriptedMonitor {
  isOpen = true;
  #now = 0;
  #listener: (event: QmpEvent) => void = () => {};
  #reject: (reason: Error) => void = () => {};

  constructor(private readonly answers?: { readonly status: string; readonly migration: string }) {}

  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listener = listener;
    return () => {};
  }

  run({ execute }: QmpCommand): Promise<unknown> {
    if (this.answers === undefined) return new Promise((_, reject) => this.#reject = reject);
    const { status, migration } = this.answers;
    return Promise.resolve({ status: execute === "query-status" ? status : migration });
  }

  /** @param timestampMs When it happened, where it is kept back. */
  says(name: string, data: QmpEvent["data"] = {}, timestampMs = ++this.#now): void {
    this.#listener({ name, data, timestampMs });
  }

  ends(): void {
    this.isOpen = false;
    this.#reject(new Error("the end"));
  }
}

async function watched(
  answers: { readonly status: string; readonly migration: string } | undefined,
  act: (monitor: ScriptedMonitor, watch: VmWatch) => unknown,
) {
  const monitor = new ScriptedMonitor(answers);
  const watch = new VmWatch(monitor as unknown as QmpClient);
  const reactor = new Reactor();
  try {
    await act(monitor, watch);
    return await watch.evidence(reactor);
  } finally {
    reactor.close();
  }
}

Deno.test("a monitor is read to its end before a VM is called dead", async () => {
  // What is said last comes while we wait for its end.
  const evidence = await watched(undefined, (monitor) => {
    setTimeout(() => {
      monitor.says("SHUTDOWN", { guest: true, reason: "guest-shutdown" });
      monitor.ends();
    }, 30);
  });
  assert.deepEqual(evidence, {
    monitor: "closed",
    isAsleep: false,
    shutdown: "guest-shutdown",
  });
  const dead = await watched(undefined, (monitor) => setTimeout(() => monitor.ends(), 30));
  assert.deepEqual(dead, { monitor: "closed", isAsleep: false });
});

Deno.test("a watchdog that powers a VM off is an orderly end: QEMU says no SHUTDOWN then", async () => {
  const heard: string[] = [];
  const { shutdown } = await watched({ status: "running", migration: "colo" }, (monitor, watch) => {
    watch.follow({ shutDown: (reason) => heard.push(reason) });
    monitor.says("WATCHDOG", { action: "reset" });
    assert.equal(watch.shutdown, undefined);
    monitor.says("WATCHDOG", { action: "poweroff" });
  });
  assert.equal(shutdown, "watchdog");
  assert.deepEqual(heard, ["watchdog"]);
});

Deno.test("a guest sleeps from SUSPEND to WAKEUP or a reset", async () => {
  const answers = { status: "suspended", migration: "colo" };
  for (const end of ["WAKEUP", "RESET"]) {
    const evidence = await watched(answers, (monitor, watch) => {
      monitor.says("SUSPEND");
      assert.ok(watch.isAsleep);
      monitor.says(end);
      assert.ok(!watch.isAsleep);
      monitor.says("SUSPEND");
    });
    assert.deepEqual(evidence, {
      monitor: "answers",
      isAsleep: true,
      runState: "suspended",
      migration: "colo",
    });
  }
});

Deno.test("who has stopped a VM is known by QEMU's word for it, until it goes on", async () => {
  const cases = [
    ["GUEST_PANICKED", { action: "pause" }, "guest-panicked"],
    ["GUEST_PANICKED", { action: "run" }, undefined],
    ["WATCHDOG", { action: "pause" }, "watchdog"],
    ["WATCHDOG", { action: "none" }, undefined],
    ["BLOCK_IO_ERROR", { action: "stop" }, "io-error"],
    ["BLOCK_IO_ERROR", { action: "report" }, undefined],
  ] as const;
  for (const [name, data, state] of cases) {
    await watched({ status: "running", migration: "none" }, (monitor, watch) => {
      monitor.says(name, data);
      assert.equal(watch.standsStill, state);
      monitor.says("RESUME");
      assert.equal(watch.standsStill, undefined);
    });
  }
});

Deno.test("a VM that has gone on is not taken for stopped by an answer from before", async () => {
  await watched({ status: "paused", migration: "none" }, async (monitor, watch) => {
    // Its answer and the RESUME come in one read: the event is heard first.
    monitor.says("STOP");
    const looked = watch.lookWhyStopped();
    monitor.says("RESUME");
    await looked;
    assert.equal(watch.standsStill, undefined);
    monitor.says("STOP");
    await watch.lookWhyStopped();
    assert.equal(watch.standsStill, "paused");
    monitor.says("RESUME");
    assert.equal(watch.standsStill, undefined);
    // Stopped again before the first answer has come: it is asked of again.
    monitor.says("STOP");
    const first = watch.lookWhyStopped();
    monitor.says("RESUME");
    monitor.says("STOP");
    await Promise.all([first, watch.lookWhyStopped()]);
    assert.equal(watch.standsStill, "paused");
  });
});

Deno.test("what QEMU has kept back stops no VM that has gone on since", async () => {
  const causes = [
    ["BLOCK_IO_ERROR", { action: "stop" }, "io-error"],
    ["WATCHDOG", { action: "pause" }, "watchdog"],
  ] as const;
  for (const [name, data, state] of causes) {
    await watched({ status: "running", migration: "none" }, (monitor, watch) => {
      monitor.says(name, data, 10);
      monitor.says("STOP", {}, 11);
      monitor.says("RESUME", {}, 20);
      // The next one, within the same second: QEMU says its STOP, and keeps it back.
      monitor.says("STOP", {}, 31);
      monitor.says("RESUME", {}, 40);
      monitor.says(name, data, 30);
      assert.equal(watch.standsStill, undefined, `${name} behind RESUME`);
      monitor.says("STOP", {}, 51);
      monitor.says(name, data, 30);
      assert.equal(watch.standsStill, undefined, `${name} behind a STOP of ours`);
      // It is why the VM stands still: late, and true.
      monitor.says(name, data, 50);
      assert.equal(watch.standsStill, state);
    });
  }
});
