/** Releases a VM from a migration whose other side is gone. */
import { getLogger } from "@logtape/logtape";
import {
  lostHeartbeat,
  queryCapabilities,
  queryStatus,
  resumeVm,
  stopVm,
  yankMigration,
} from "../../qmp/migration.ts";
import { decodeMigrationStatus, queryMigration } from "../../qmp/migration_status.ts";
import { QemuError, WireError } from "../../errors.ts";
import { mustStayInColo } from "../../qmp/run_state.ts";
import type { QmpClient } from "./qmp_client.ts";
import { runByStub } from "./run_by_stub.ts";
import { type Clock, SYSTEM_CLOCK } from "../system/clock.ts";

const log = getLogger(["kemari", "protect"]);

/** Whether the VM goes on unprotected, or is stopped until an operator decides. */
export type OnSecondaryLoss = "continue" | "stop";

/** Whether the secondary has said that it has taken over: then the VM must not run here. */
export function isTakenOver(error: unknown): boolean {
  return error instanceof WireError && error.fault === "taken-over";
}

/** Run states in which only a migration keeps the VM from running. */
const HELD_STATES: ReadonlySet<string> = new Set(["colo", "postmigrate", "finish-migrate"]);

const SETTLE_MS = 5000;
/** If COLO lets a VM run at its end, it does so within this time. */
const WAKE_MS = 1000;
const POLL_MS = 20;
/** How long {@link releaseVm} waits for QEMU in total. */
export const MOST_RELEASE_MS = SETTLE_MS + SETTLE_MS + WAKE_MS;
/** A migration that is being cancelled has ended after this time, or never ends. */
const CANCEL_MS = 1000;
/** A VM that QEMU's gdb stub lets run is running after this time. */
const STUB_MS = 2000;

/**
 * Whether QEMU is in COLO with a VM that the end of COLO would harm: COLO is to be ended later.
 *
 * @returns The VM's run state then.
 * @throws {QemuError | TransportError} if QEMU refuses or cannot be reached.
 */
export async function staysInColo(client: QmpClient): Promise<string | undefined> {
  const state = await runState(client);
  if (!mustStayInColo(state)) return undefined;
  const { phase } = decodeMigrationStatus(await client.run(queryMigration()));
  return phase === "colo" ? state : undefined;
}

/**
 * Ends COLO or a migration under way, and leaves the VM running or stopped.
 *
 * @param stoppedByUs Whether the VM may be stopped because of us: then it goes on, if it is to go
 *   on.
 * @returns The run state that QEMU reports afterwards.
 * @throws {QemuError | TransportError} if QEMU refuses or cannot be reached.
 */
export async function releaseVm(
  client: QmpClient,
  action: OnSecondaryLoss,
  stoppedByUs = false,
  clock = SYSTEM_CLOCK,
): Promise<string> {
  const migration = async () => decodeMigrationStatus(await client.run(queryMigration()));
  const before = await migration();
  let isStuck = false;
  if (before.phase === "colo" || before.phase === "running") {
    // A QEMU that hangs in the migration's channel would not hear the next command.
    await ignoring(client.run(yankMigration()));
    if (before.phase === "colo") await ignoring(client.run(lostHeartbeat()));
    const begun = clock.now();
    for (;;) {
      const { phase, status } = await migration();
      if (phase !== "colo" && phase !== "running") break;
      const waitedMs = clock.now() - begun;
      // From 8 or so on, QEMU never ends a COLO that was cancelled (measured, 10.0 and 11.1): its
      // thread waits for the command x-colo-lost-heartbeat, which QEMU refuses then. The VM may go
      // on all the same.
      isStuck = status === "cancelling" && waitedMs > CANCEL_MS;
      if (isStuck || waitedMs > SETTLE_MS) break;
      if (phase === "colo" && before.phase !== "colo") await ignoring(client.run(lostHeartbeat()));
      await clock.delay(POLL_MS);
    }
  }
  // QEMU's COLO thread lets the VM run when it gets this command, also a VM that an operator had
  // paused; a `stop` before that would be undone.
  const isWaking = before.phase === "colo" && action === "stop";
  const state = isStuck ? await runState(client) : await settled(client, isWaking, clock);
  const isHeld = HELD_STATES.has(state) || stoppedByUs && state === "paused";
  if (action === "stop") {
    if (state === "running" || isHeld) await client.run(stopVm());
  } else if (isHeld && isStuck) await resumeStuck(client, clock);
  else if (isHeld) await client.run(resumeVm());
  return await runState(client);
}

/**
 * Lets a VM run whose COLO was cancelled and never ends. If it was cancelled during a checkpoint,
 * the VM stands still in the run state `colo` for ever: QEMU 11.1 refuses `cont` there ("COLO
 * checkpoint in progress"), 10.0 does not. Every QEMU refuses `cont` in `finish-migrate`, before
 * COLO's first message ("Migration is not finalized yet"). `stop` changes nothing.
 *
 * @throws {QemuError | TransportError} if QEMU does not let the VM run, or cannot be reached.
 */
async function resumeStuck(client: QmpClient, clock: Clock): Promise<void> {
  const begun = clock.now();
  for (;;) {
    const refusal = await client.run(resumeVm()).then(() => undefined, (error) => error);
    if (refusal === undefined) return;
    if (!(refusal instanceof QemuError)) throw refusal;
    const state = await runState(client);
    if (state === "running") return;
    if (!PASSING_STATES.has(state)) throw refusal;
    if (state === "colo") return await runAgainstRefusal(client, refusal, clock);
    // A migration that is cancelled leaves this state by itself, unless COLO holds it. Only under
    // COLO does the VM keep its disks in this state, and without them it must not run.
    if (clock.now() - begun > SETTLE_MS) {
      if (!await isColoEnabled(client)) throw refusal;
      return await runAgainstRefusal(client, refusal, clock);
    }
    await clock.delay(POLL_MS);
  }
}

/** Whether a migration of this QEMU becomes COLO. */
async function isColoEnabled(client: QmpClient): Promise<boolean> {
  const capabilities = await client.run(queryCapabilities());
  return Array.isArray(capabilities) &&
    capabilities.some(({ capability, state }) => capability === "x-colo" && state === true);
}

/** @param refusal QEMU's answer to `cont`. */
async function runAgainstRefusal(
  client: QmpClient,
  refusal: QemuError,
  clock: Clock,
): Promise<void> {
  log.warn(
    "QEMU's COLO was cancelled, and refuses to let the VM run ({reason}): its gdb stub does",
    {
      reason: refusal.reason,
    },
  );
  const runs = async () => {
    const begun = clock.now();
    while (PASSING_STATES.has(await runState(client))) {
      if (clock.now() - begun > STUB_MS) throw refusal;
      await clock.delay(POLL_MS);
    }
  };
  try {
    await runByStub(client, runs);
  } catch (error) {
    if (!(error instanceof QemuError)) throw error;
    const how = error === refusal ? "" : ` (${error.message})`;
    throw new QemuError(
      refusal.command,
      refusal.errorClass,
      `${refusal.reason}; QEMU's gdb stub did not let the VM run either${how}, and the VM stands ` +
        `still. ` +
        "To let it run, say gdbserver tcp:127.0.0.1:1234 in QEMU's human monitor, then run gdb " +
        "-batch -ex 'target remote 127.0.0.1:1234' -ex detach where QEMU runs; if that fails " +
        "too, system_reset and cont start the guest anew",
      { cause: error },
    );
  }
}

/** Run states from which COLO lets a VM run again by itself. */
const PASSING_STATES: ReadonlySet<string> = new Set(["colo", "finish-migrate"]);

/**
 * Waits until the run state is one that COLO does not leave by itself. @returns That run state.
 *
 * @param toStop Whether the VM is to be stopped behind COLO: then this waits for a paused VM too.
 */
async function settled(client: QmpClient, toStop: boolean, clock: Clock): Promise<string> {
  const begun = clock.now();
  for (;;) {
    const state = await runState(client);
    const passes = PASSING_STATES.has(state);
    const limitMs = passes ? SETTLE_MS : toStop && state !== "running" ? WAKE_MS : 0;
    if (clock.now() - begun >= limitMs) return state;
    await clock.delay(POLL_MS);
  }
}

/** `query-status`'s word. */
export async function runState(client: QmpClient): Promise<string> {
  const reply = await client.run(queryStatus()) as { status?: unknown } | null;
  return typeof reply?.status === "string" ? reply.status : "unknown";
}

/** Executes a command that QEMU refuses where it is not needed. */
async function ignoring(task: Promise<unknown>): Promise<void> {
  try {
    await task;
  } catch {
    // QEMU's answer when there is nothing to yank or to fail over.
  }
}
