import assert from "node:assert/strict";
import type { QmpCommand } from "../../qmp/codec.ts";
import type { QmpEvent } from "../../qmp/session.ts";
import type { QmpClient } from "./qmp_client.ts";
import { Reactor } from "../system/reactor.ts";
import { VmWatch } from "./vm_watch.ts";

/** A monitor that says what it is told to, and answers by these words or not at all. */
class ScriptedMonitor {
  isOpen = true;
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

  says(name: string, data: QmpEvent["data"] = {}): void {
    this.#listener({ name, data });
  }

  ends(): void {
    this.isOpen = false;
    this.#reject(new Error("the end"));
  }
}

async function watched(
  answers: { readonly status: string; readonly migration: string } | undefined,
  act: (monitor: ScriptedMonitor, watch: VmWatch) => void,
) {
  const monitor = new ScriptedMonitor(answers);
  const watch = new VmWatch(monitor as unknown as QmpClient);
  const reactor = new Reactor();
  try {
    act(monitor, watch);
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

Deno.test("whoever follows a VM hears what happens to it, in turn, and behind what it means", async () => {
  await watched({ status: "running", migration: "none" }, (monitor, watch) => {
    const heard: string[] = [];
    const follower = (name: string) => ({
      stopped: () => heard.push(`${name} stopped`),
      resumed: () => heard.push(`${name} resumed ${watch.standsStill}`),
      asleep: () => heard.push(`${name} asleep ${watch.isAsleep}`),
      awake: () => heard.push(`${name} awake ${watch.isAsleep}`),
      reset: () => heard.push(`${name} reset`),
      inColo: () => heard.push(`${name} in COLO`),
    });
    const unfollow = watch.follow(follower("a"));
    watch.follow(follower("b"));
    monitor.says("STOP");
    monitor.says("BLOCK_IO_ERROR", { action: "stop" });
    unfollow();
    monitor.says("RESUME");
    monitor.says("SUSPEND");
    monitor.says("WAKEUP");
    monitor.says("RESET");
    monitor.says("MIGRATION", { status: "active" });
    monitor.says("MIGRATION", { status: "colo" });
    assert.deepEqual(heard, [
      ...["a stopped", "b stopped", "b resumed undefined", "b asleep true", "b awake false"],
      ...["b reset", "b in COLO"],
    ]);
  });
});
