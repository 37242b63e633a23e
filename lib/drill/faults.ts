/** How each fault is caused, and on which side the VM must go on. */
import { formatShare, formatWholeMs } from "../units.ts";
import { DrillClient } from "./client.ts";
import { checkConnection, checkGuest, checkKilledPrimary, checkReplicaDisk } from "./checks.ts";
import { freezeApplying, freezeSender } from "./freeze.ts";
import { type DrillHosts, SERVICE_PORT } from "./hosts.ts";
import type { TappedStatus } from "../lab/program/ask_end.ts";
import type { TakeoverStatus } from "../control/receiver_status.ts";
import type { Fault } from "./plan.ts";
import { kill, say } from "../lab/program/lab_process.ts";
import type { DrillCheck, RunContext } from "./report.ts";
import type { DrillWire } from "./wire.ts";
import { delay } from "../host/system/delay.ts";
import { until } from "../lab/program/until.ts";

/** Answers that the client must get after a takeover. */
const ANSWERS_AFTER = 30;
/** Answers that the client must get before the fault. */
const ANSWERS_BEFORE = 5;
/** A fault comes up to this much later than asked, at random: not in step with anything. */
const RANDOM_MS = 1000;

/** The results of a fault, for the report. */
export interface FaultOutcome {
  readonly checks: readonly DrillCheck[];
  readonly phase: string;
  readonly sender: TappedStatus;
  readonly transaction: number;
  readonly commitAgeMs: number;
  readonly lastCount: number;
  readonly firstCount: number;
  readonly outageMs?: number;
  readonly silenceMs?: number;
  readonly takeover?: TakeoverStatus;
}

/** A run under way. */
export interface FaultRehearsal {
  readonly hosts: DrillHosts;
  readonly client: DrillClient;
  readonly wire: DrillWire;
  readonly bootId: string;
  readonly context: RunContext;
}

export const PERFORM: Readonly<Record<Fault, (run: FaultRehearsal) => Promise<FaultOutcome>>> = {
  primary: killPrimary,
  sender: killSender,
  link: cutLink,
  receiver: killReceiver,
  copy: killInCopy,
  apply: killInApply,
};

/** Connects the client, and waits until it has been answered. */
export async function connectClient(
  hosts: DrillHosts,
  context: RunContext,
): Promise<DrillClient> {
  context.narrate("a client connects over TCP, from a network namespace of its own");
  const client = new DrillClient(hosts.lab, SERVICE_PORT, context.kemari);
  await until(
    () => client.acked.length >= ANSWERS_BEFORE || client.error !== undefined,
    "the client's first answers",
    context,
  );
  return client;
}

/** Lets everything run for the time asked, and checks both ends. */
export async function synchronize({ hosts, context }: FaultRehearsal) {
  const { settings, random, signal } = context;
  await delay(settings.seconds * 1000 + random.below(RANDOM_MS), signal);
  return { sender: await hosts.senderStatus(), receiver: await hosts.receiverStatus() };
}

/** Both ends still run as at the start; the fault comes now. */
async function killPrimary(run: FaultRehearsal): Promise<FaultOutcome> {
  const before = await synchronize(run);
  const { hosts, context } = run;
  const wanted = context.random.pick(context.settings.phases);
  const phase = await freezeSender(hosts, wanted, context.random, context.signal);
  context.narrate(`kill -9: the primary's QEMU and its kemari (phase: ${phase})`);
  const receiver = await hosts.receiverStatus();
  const at = Date.now();
  await hosts.killPrimary();
  return await takenOver(run, { ...before, receiver }, at, phase, []);
}

async function killSender(run: FaultRehearsal): Promise<FaultOutcome> {
  const before = await synchronize(run);
  const { hosts, context } = run;
  const wanted = context.random.pick(context.settings.phases);
  const phase = await freezeSender(hosts, wanted, context.random, context.signal);
  context.narrate(`kill -9: the primary's kemari alone (phase: ${phase})`);
  const receiver = await hosts.receiverStatus();
  const at = Date.now();
  kill(hosts.protect.pid);
  let ended = false;
  hosts.primary.status.then(() => ended = true);
  await until(() => ended, "the fence of the primary", context);
  return await takenOver(run, { ...before, receiver }, at, phase, [{
    name: "the VM goes on at exactly one side",
    held: ended,
    detail: "at the secondary: the primary's VM lost its disk and NIC with kemari, and was fenced",
  }]);
}

async function cutLink(run: FaultRehearsal): Promise<FaultOutcome> {
  const before = await synchronize(run);
  const { hosts, context } = run;
  const { narrate } = context;
  await hosts.holdFence();
  narrate("the cable between the hosts is cut; every process lives on");
  const at = Date.now();
  await hosts.lab.setCable("cut");
  let state: string | undefined;
  await until(
    async () => {
      state = await hosts.runState(1000);
      return state === "paused";
    },
    "the primary's stop",
    context,
  );
  const stoppedMs = Date.now() - at;
  const first = hosts.fenceAsked ? "the secondary" : "the primary";
  narrate(`the primary stopped its VM by itself after ${stoppedMs} ms; the cable is whole again`);
  // No more output of the primary may get out; and a secondary that has not noticed the silence
  // must take over nevertheless.
  await hosts.lab.setCable("whole");
  await until(() => hosts.fenceAsked, "the secondary's fence", context);
  narrate("the secondary fences the primary");
  const receiver = await hosts.receiverStatus();
  await hosts.releaseFence();
  const phase = `cable cut, ${first} noticed first`;
  return await takenOver(run, { ...before, receiver }, at, phase, [{
    name: "the side that must stop stopped by itself",
    held: state === "paused",
    detail: `the primary's VM was ${state} ${stoppedMs} ms after the cut, before the fence`,
  }]);
}

async function killReceiver(run: FaultRehearsal): Promise<FaultOutcome> {
  const { sender } = await synchronize(run);
  const { hosts, client, wire, context } = run;
  const { narrate, signal, random } = context;
  narrate("kill -9: the secondary's kemari and its QEMU");
  const at = Date.now();
  await hosts.killSecondary();
  await moreAnswers(run);
  const gapMs = client.longestGapMs(at - 100);
  const alone = wire.framesFrom("primary");
  narrate(`the primary goes on, after a gap of ${formatWholeMs(gapMs)}; the secondary comes back`);
  await hosts.startSecondary();
  await hosts.waitUntilProtected();
  narrate("protected again");
  await moreAnswers(run);
  const receiver = await hosts.receiverStatus();
  const phase = await freezeSender(
    hosts,
    random.pick(context.settings.phases),
    random,
    signal,
  );
  narrate(`kill -9: the primary's QEMU and its kemari (phase: ${phase})`);
  const killedAt = Date.now();
  await hosts.killPrimary();
  return await takenOver(run, { sender, receiver }, killedAt, phase, [{
    name: "the primary went on without its secondary",
    held: client.error === undefined && alone > 0,
    detail: `a gap of ${formatWholeMs(gapMs)}; protected again afterwards`,
  }]);
}

async function killInCopy(run: FaultRehearsal): Promise<FaultOutcome> {
  const { hosts, client, wire, context } = run;
  const { narrate, random, signal } = context;
  narrate("the secondary appears: the disk is copied to it");
  await hosts.startSecondary();
  await until(
    async () => {
      return (await hosts.receiverStatus()).lastCommitted > 0;
    },
    "the first transaction",
    context,
  );
  await delay(random.below(RANDOM_MS), signal);
  const sender = await hosts.senderStatus();
  const receiver = await hosts.receiverStatus();
  const copied = sender.taps.disks[0].copied;
  const lastCount = client.last;
  const phase = `${formatShare(copied, 0)} copied`;
  narrate(`kill -9: the primary's QEMU and its kemari (${phase})`);
  await hosts.killPrimary();
  const refusal = /not activated: .*copy is not complete.*/;
  let said: string | undefined;
  await until(
    async () => {
      said = refusal.exec(await hosts.log("secondary"))?.[0];
      return said !== undefined || wire.framesFrom("secondary") > 0;
    },
    "a word from the secondary",
    context,
  );
  narrate(`the secondary: ${said ?? "activated"}`);
  const consoleLines = hosts.secondary.console.lines.length;
  return {
    checks: [
      { name: "the kill came in the middle of the copy", held: copied < 1, detail: phase },
      {
        name: "the secondary refused to activate",
        held: said !== undefined && wire.framesFrom("secondary") === 0 && consoleLines === 0,
        detail: said ?? "it did not",
      },
      ...await checkKilledPrimary(hosts, client),
      wire.check(),
    ],
    phase,
    sender,
    transaction: receiver.lastCommitted,
    commitAgeMs: receiver.lastCommittedAgeMs ?? 0,
    lastCount,
    firstCount: 0,
  };
}

/** Large writes, so that a transaction takes its time to apply. */
const BULK = "while [ ! -e /mem/stop ]; do dd if=/dev/urandom of=/mnt/bulk bs=64k count=64 " +
  "conv=fsync 2>/dev/null; done > /dev/null 2>&1 &";
const APPLY_LIMIT_MS = 20_000;

async function killInApply(run: FaultRehearsal): Promise<FaultOutcome> {
  const { hosts, context } = run;
  const { narrate, random, signal } = context;
  await say(hosts.primary, BULK);
  const before = await synchronize(run);
  const receiver = await hosts.receiverStatus();
  const caught = await freezeApplying(hosts, random, APPLY_LIMIT_MS, signal);
  const phase = caught ? "writing to the replica's disk" : "not caught";
  narrate(`kill -9: the primary's QEMU and its kemari (${phase})`);
  const at = Date.now();
  await hosts.killPrimary();
  if (caught) Deno.kill(hosts.recv.pid, "SIGCONT");
  return await takenOver(run, { ...before, receiver }, at, phase, [
    { name: "the kill came while a transaction was applied", held: caught, detail: phase },
  ]);
}

/** Waits for a number of further answers. @throws {TransportError} if they do not come. */
export async function moreAnswers({ client, context }: FaultRehearsal): Promise<void> {
  const wanted = client.acked.length + ANSWERS_AFTER;
  await until(
    () => client.acked.length >= wanted || client.error !== undefined,
    `answer ${wanted}`,
    context,
  );
}

/** Waits until the VM goes on at the secondary, and checks everything. */
export async function takenOver(
  run: FaultRehearsal,
  before: {
    sender: TappedStatus;
    receiver: { lastCommitted: number; lastCommittedAgeMs: number | null };
  },
  sinceMs: number,
  phase: string,
  checks: readonly DrillCheck[],
): Promise<FaultOutcome> {
  const { hosts, client, wire, bootId, context } = run;
  const lastCount = client.last;
  await moreAnswers(run);
  await client.stop();
  const firstCount = client.acked.find(({ n }) => n > lastCount)?.n ?? 0;
  const outageMs = client.longestGapMs(sinceMs - 1000);
  const { takeover } = await hosts.receiverStatus();
  context.narrate(
    `the client goes on: answer ${firstCount}, after a gap of ${
      formatWholeMs(outageMs)
    }, of which ` +
      `its connection was silent for ${wire.silenceMs ?? "?"} ms`,
  );
  return {
    checks: [
      ...checks,
      checkConnection(client),
      ...await checkGuest(hosts, hosts.secondary, client, bootId),
      await checkReplicaDisk(hosts),
      wire.check(hosts.hostOf("primary")),
    ],
    phase,
    sender: before.sender,
    transaction: before.receiver.lastCommitted,
    commitAgeMs: before.receiver.lastCommittedAgeMs ?? 0,
    lastCount,
    firstCount,
    outageMs,
    silenceMs: wire.silenceMs,
    takeover: takeover ?? undefined,
  };
}
