import assert from "node:assert/strict";
import type { Answer } from "../../decisions/primary_end.ts";
import { TransportError, WireError } from "../../errors.ts";
import type { QmpCommand } from "../../qmp/codec.ts";
import type { VmEvidence } from "../../decisions/vm_fate.ts";
import { endOf, partFromSecondary, type Parting } from "./parting.ts";
import { Reactor } from "../system/reactor.ts";
import { HastyReactor } from "../system/testing/hasty_reactor.ts";
import type { SenderLink } from "../link/sender_link.ts";
import { endedBy } from "../vm/vm_end_words.ts";
import { GuestSleeps, VmEnded, type VmWatch } from "../vm/vm_watch.ts";
import { never } from "../system/never.ts";

const SECONDARY = "secondary:4000";
const LOSS = new TransportError(SECONDARY, "read", "the secondary closed the connection", {
  party: "peer",
});
const TAKEN_OVER = new WireError("transaction", 0, "taken-over", "told to take over");
const STREAM_END = new TransportError("QEMU", "read", "the stream broke off", { party: "qemu" });
const INTERRUPTED = new Error("interrupted");

interface Situation {
  readonly error: unknown;
  readonly onSecondaryLoss?: "continue" | "stop";
  readonly interrupted?: boolean;
  readonly qemu?: "answers" | "gone" | "silent";
  /** What `leave` comes to. */
  readonly heard?: boolean | WireError;
  readonly paused?: boolean;
  readonly linked?: boolean;
  /** Whether a migration was begun; with a link, if absent. */
  readonly begun?: boolean;
  /** Whether we stood still before that. */
  readonly stoodStill?: boolean;
  /** What the secondary says when it is asked whether it has taken over. */
  readonly answer?: Answer;
  /** What is found out of the VM, where it is asked for. */
  readonly evidence?: Partial<VmEvidence>;
  readonly runState?: string;
  /** What else has failed by then. */
  readonly beside?: Error;
}

/** Parts, and tells what was done, in order. */
async function part(situation: Situation) {
  const { told, done } = await partWithError(situation);
  return { told, done };
}

/** The same, and what the protection ends with. */
async function partWithError(situation: Situation) {
  const { error, onSecondaryLoss = "continue", interrupted = false } = situation;
  const { qemu = "answers", heard = true, paused = false, linked = true } = situation;
  const { stoodStill = false, answer = "heard" } = situation;
  const { evidence = {}, runState = "running", begun = linked } = situation;
  const done: string[] = [];
  const reactor = new HastyReactor();
  const controller = new AbortController();
  if (interrupted) controller.abort(INTERRUPTED);
  const gone = new TransportError("/qmp", "read", "QEMU closed the QMP connection", {
    party: "qemu",
  });
  const qmp = {
    path: "/qmp",
    isOpen: qemu !== "gone",
    run({ execute }: QmpCommand, { timeoutMs }: { timeoutMs?: number } = {}): Promise<unknown> {
      if (qemu === "gone") return Promise.reject(gone);
      if (qemu === "silent") {
        return new Promise((_, reject) => {
          if (timeoutMs !== undefined) setTimeout(() => reject(gone), timeoutMs);
        });
      }
      if (execute === "query-migrate") {
        return Promise.resolve({ status: runState === "suspended" ? "colo" : "completed" });
      }
      if (execute === "query-status") return Promise.resolve({ status: runState });
      done.push(execute);
      return Promise.resolve({});
    },
  };
  const link = {
    ready: linked,
    stoodStill,
    primary: { dialogue: { isVmPaused: paused } },
    leave: (reason: string) => {
      done.push(reason === "goes-on" ? "leave" : reason);
      return heard instanceof WireError ? Promise.reject(heard) : Promise.resolve(heard);
    },
    quiesce: () => void done.push("quiesce"),
    close: () => void done.push("close"),
  };
  const monitor = { answers: "answers", gone: "closed", silent: "silent" } as const;
  const watch = {
    shutdown: evidence.shutdown,
    isAsleep: evidence.isAsleep ?? false,
    standsStill: undefined,
    evidence: () => Promise.resolve({ monitor: monitor[qemu], migration: "colo", ...evidence }),
  } as unknown as VmWatch;
  const parting = {
    qmp,
    reactor,
    watch,
    folder: "/nonexistent",
    still: { isHeld: false, hasBegun: begun, giveUp: () => Promise.resolve() },
    taps: { passThrough: () => void done.push("pass through") },
    guardian: { decide: (action: string) => void done.push(`decide ${action}`) },
    onSecondaryLoss,
    ask: () => {
      done.push("ask");
      return Promise.resolve(answer);
    },
    signal: controller.signal,
  } as unknown as Parting;
  if (situation.beside !== undefined) reactor.fail(situation.beside);
  try {
    const parted = await partFromSecondary(error, link as unknown as SenderLink, parting);
    const { told } = parted;
    const wanted = [
      "ask",
      "leave",
      "vm-ended",
      "quiesce",
      "close",
      "pass through",
      "stop",
      "decide continue",
    ];
    const steps = done.filter((step) => [...wanted, "decide stop"].includes(step));
    return { told, done: steps, error: parted.error };
  } finally {
    reactor.close();
  }
}

const GOES_ON = ["leave", "close", "pass through", "decide continue", "close"];
const STOPS = ["close", "decide stop", "stop", "close"];

Deno.test("a VM whose secondary is lost goes on, or stops, as is wanted", async () => {
  assert.deepEqual(await part({ error: LOSS }), { told: true, done: GOES_ON });
  assert.deepEqual(await part({ error: LOSS, onSecondaryLoss: "stop" }), {
    told: true,
    done: STOPS,
  });
});

Deno.test("a VM that was paused is told to stand still, and its output goes all the same", async () => {
  assert.deepEqual((await part({ error: LOSS, paused: true })).done, [
    ...["leave", "close", "pass through", "decide stop", "stop", "close"],
  ]);
});

Deno.test("nothing of a dead QEMU's uncommitted epoch gets out, and nobody is told that it goes on", async () => {
  for (
    const error of [STREAM_END, new TransportError("/qmp", "read", "no more", { party: "qemu" })]
  ) {
    const { told, done } = await part({ error, qemu: "gone" });
    assert.deepEqual([told, done], [true, ["close", "decide stop", "close"]]);
  }
});

Deno.test("a VM that was shut down starts nowhere, and its last words get out once the secondary knows", async () => {
  const ended = {
    error: STREAM_END,
    qemu: "gone",
    evidence: { shutdown: "guest-shutdown" },
  } as const;
  const parts = await part(ended);
  assert.deepEqual(parts, {
    told: true,
    done: ["vm-ended", "close", "pass through", "decide stop", "close"],
  });
  const said = { ...ended, error: new VmEnded("guest-shutdown") };
  assert.deepEqual((await part(said)).done, parts.done);
  assert.deepEqual((await part({ ...said, onSecondaryLoss: "stop" })).done, parts.done);
  // The secondary may be about to take over.
  assert.deepEqual((await part({ ...said, heard: false })).done, [
    ...["vm-ended", "close", "decide stop", "close"],
  ]);
  const kept = { ...said, qemu: "answers", runState: "shutdown" } as const;
  assert.ok(!(await part(kept)).done.includes("decide continue"), "-no-shutdown");
});

Deno.test("a guest that sleeps is left in COLO, and the secondary knows that it is here", async () => {
  const asleep = {
    error: new GuestSleeps(),
    evidence: { runState: "suspended", isAsleep: true },
    runState: "suspended",
  };
  const done = ["leave", "close", "pass through", "decide continue", "close"];
  assert.deepEqual(await part(asleep), { told: "later", done });
  assert.deepEqual(await part({ ...asleep, interrupted: true }), { told: "later", done });
});

Deno.test("a secondary that refuses is no less refusing for a guest that sleeps", async () => {
  const reactor = new Reactor();
  const watch = { isAsleep: true, evidence: () => assert.fail("asked") } as unknown as VmWatch;
  const parting = { reactor, watch, signal: never } as unknown as Parting;
  const busy = new WireError("transaction", 0, "busy", "another sender");
  // It is asked ever less often then.
  assert.deepEqual(await endOf(busy, parting), { end: "busy" });
  reactor.close();
});

Deno.test("a guest that QEMU cannot let sleep is a loss, and nobody touches it", async () => {
  const evidence = { runState: "colo", isAsleep: true };
  assert.deepEqual(await part({ error: new GuestSleeps(), evidence }), {
    told: true,
    done: ["close", "close"],
  });
});

Deno.test("a cancelled migration is no loss, whatever is to happen at one, where the secondary hears of it", async () => {
  for (const [runState, migration] of [["running", "completed"], ["colo", "cancelling"]]) {
    const cancelled = { error: STREAM_END, evidence: { runState, migration } };
    assert.deepEqual((await part(cancelled)).done, GOES_ON);
    // Its STOP was QEMU's own, on the way out of COLO (7.2).
    assert.deepEqual((await part({ ...cancelled, paused: true })).done, GOES_ON);
    assert.deepEqual((await part({ ...cancelled, onSecondaryLoss: "stop" })).done, GOES_ON);
    const unheard = { ...cancelled, onSecondaryLoss: "stop", heard: false } as const;
    assert.deepEqual((await part(unheard)).done, ["leave", ...STOPS]);
  }
});

Deno.test("what a protection ends with never tells to activate a VM that is here", () => {
  for (const kind of ["alive", "failed"] as const) {
    for (const heard of [true, false, undefined]) {
      const { hint } = endedBy({ kind }, STREAM_END, heard, SECONDARY) as { hint?: string };
      assert.match(hint!, /the VM is here/);
      assert.doesNotMatch(hint!, /failover/);
    }
  }
  const how = { kind: "cancelled", how: "migrate_cancel" } as const;
  assert.doesNotMatch(
    (endedBy(how, STREAM_END, true, SECONDARY) as { hint: string }).hint,
    /failover/,
  );
  assert.ok(
    endedBy({ kind: "ended", reason: "x" }, STREAM_END, true, SECONDARY) instanceof VmEnded,
  );
  const unheard = endedBy({ kind: "ended", reason: "x" }, STREAM_END, false, SECONDARY);
  assert.ok(unheard instanceof TransportError && unheard.party === "peer");
});

Deno.test("a QEMU that lives though its stream has ended goes on; one that is silent must not", async () => {
  assert.deepEqual((await part({ error: STREAM_END })).done, GOES_ON);
  const { told, done } = await part({ error: STREAM_END, qemu: "silent", interrupted: true });
  assert.deepEqual([told, done], [false, ["close", "decide stop", "close"]]);
});

Deno.test("an interruption wants no takeover, but only where the secondary has heard of it", async () => {
  const stop = { error: INTERRUPTED, interrupted: true, onSecondaryLoss: "stop" } as const;
  assert.deepEqual((await part(stop)).done, GOES_ON);
  assert.deepEqual((await part({ ...stop, heard: false })).done, ["leave", ...STOPS]);
  const goOn = { ...stop, onSecondaryLoss: "continue", heard: false } as const;
  assert.deepEqual((await part(goOn)).done, GOES_ON);
});

Deno.test("a VM that is taken over stops before the connection ends, also if it is heard while leaving", async () => {
  const stops = ["quiesce", "decide stop", "stop", "close"];
  assert.deepEqual((await part({ error: TAKEN_OVER })).done, stops);
  const crossing = { error: INTERRUPTED, interrupted: true, heard: TAKEN_OVER };
  assert.deepEqual((await part(crossing)).done, ["leave", ...stops]);
});

Deno.test("a migration that is not ours is an operator's, and left alone", async () => {
  const moving = { error: LOSS, begun: false, runState: "postmigrate" };
  assert.deepEqual((await part(moving)).done, ["leave", "close", "pass through", "close"]);
  const moved = { ...moving, error: new VmEnded("it was migrated") };
  assert.deepEqual((await part(moved)).done, ["vm-ended", "close", "pass through", "close"]);
});

Deno.test("QEMU is told nothing of a secondary that never said who it is", async () => {
  assert.deepEqual((await part({ error: LOSS, linked: false })).done, [
    ...["leave", "close", "pass through", "close"],
  ]);
});

const SILENCE = new WireError("transaction", 0, "silence", "nothing was heard");
/** After the answer: nothing that was held has got out before. */
const ASKED_AND_GOES_ON = ["close", "ask", ...GOES_ON.slice(1)];

Deno.test("given up for silence, it asks before anything that was held gets out", async () => {
  assert.deepEqual((await part({ error: SILENCE })).done, ASKED_AND_GOES_ON);
  assert.deepEqual((await part({ error: SILENCE, answer: "taken-over" })).done, [
    ...["close", "ask", "quiesce", "decide stop", "stop", "close"],
  ]);
});

Deno.test("given up for silence, and answered by nobody, the VM stops, whatever is to happen at a loss", async () => {
  const done = ["close", "ask", ...STOPS];
  const parts = await partWithError({ error: SILENCE, answer: "unheard" });
  assert.deepEqual(parts.done, done);
  // The secondary may run the VM, and have no listener any more.
  assert.match((parts.error as { hint: string }).hint, /stopped here.*kemari status at the sec/);
  const interrupted = { error: SILENCE, answer: "unheard", interrupted: true } as const;
  assert.deepEqual((await part(interrupted)).done, done);
});

Deno.test("after standing still itself it asks, too, unless the session's own secondary answers", async () => {
  for (const [error, interrupted] of [[LOSS, false], [INTERRUPTED, true]] as const) {
    const stood = { error, interrupted, stoodStill: true };
    assert.deepEqual((await part(stood)).done, GOES_ON);
    const unheard = { ...stood, heard: false };
    assert.deepEqual((await part(unheard)).done, ["leave", ...ASKED_AND_GOES_ON]);
    const { done } = await part({ ...unheard, answer: "taken-over" });
    assert.ok(!done.includes("pass through"), "nothing that was held may get out");
    // Nobody has said that we were given up.
    const alone = await part({ ...unheard, answer: "unheard" });
    assert.deepEqual(alone.done, ["leave", ...ASKED_AND_GOES_ON]);
  }
});

Deno.test("a primary that learns while it leaves that it was given up asks, and goes on only if it is heard", async () => {
  for (const interrupted of [false, true]) {
    const leaving = { error: interrupted ? INTERRUPTED : LOSS, interrupted, heard: SILENCE };
    assert.deepEqual((await part(leaving)).done, ["leave", ...ASKED_AND_GOES_ON]);
    assert.deepEqual((await part({ ...leaving, answer: "unheard" })).done, [
      ...["leave", "close", "ask", ...STOPS],
    ]);
  }
  const ended = { error: new VmEnded("guest-shutdown"), heard: SILENCE };
  assert.deepEqual((await part(ended)).done, ["vm-ended", ...STOPS]);
});

Deno.test("QEMU is told that it is alone, whatever else has failed meanwhile", async () => {
  const beside = new TransportError("tap0", "read", "the interface is gone", { party: "net" });
  assert.deepEqual(await part({ error: LOSS, beside }), { told: true, done: GOES_ON });
});
