/**
 * All QMP commands of kemari for QEMU's migration, as data.
 *
 * @see QEMU qapi/migration.json, migration/options.c, docs/system/qemu-colo.rst
 */
import type { QmpCommand } from "./codec.ts";
import type { MigrationSupport } from "./migration_support.ts";

/**
 * Capabilities that change the stream or its end in ways that kemari does not support. They are
 * switched off. `return-path` depends on the mode; `xbzrle` and the throttles may stay as they are.
 */
const UNFIT_CAPABILITIES: readonly string[] = [
  "background-snapshot",
  "block",
  "compress",
  "dirty-bitmaps",
  "mapped-ram",
  "multifd",
  "pause-before-switchover",
  "postcopy-blocktime",
  "postcopy-preempt",
  "postcopy-ram",
  "rdma-pin-all",
  "release-ram",
  "switchover-ack",
  "x-ignore-shared",
  "zero-copy-send",
];

/** Every capability that a protection sets, in either mode. */
export const CHANGED_CAPABILITIES: readonly string[] = [
  "events",
  "return-path",
  "x-colo",
  ...UNFIT_CAPABILITIES,
];

/** Every parameter that a protection sets, in either mode. */
export const CHANGED_PARAMETERS: readonly string[] = ["max-bandwidth", "x-checkpoint-delay"];

/** Bytes a second: more than any link, so that QEMU never waits for its own limit. */
const UNLIMITED_BANDWIDTH = 2 ** 40;

/** The configuration of a continuous migration. */
interface ColoConfig {
  /** The interval of checkpoints when nothing else asks for one. */
  readonly checkpointDelayMs: number;
  /**
   * Whether QEMU opens a return path. From 11 on COLO is refused without a return path; before
   * that, with a return path, the source ends with "Can't receive COLO message" (measured, 7.2).
   */
  readonly returnPath: boolean;
}

/** Sets QEMU up for a continuous migration (COLO). */
export function enableColo(support: MigrationSupport, settings: ColoConfig): QmpCommand[] {
  return [
    setCapabilities(support, { "x-colo": true, "return-path": settings.returnPath }),
    setParameters({
      "max-bandwidth": UNLIMITED_BANDWIDTH,
      "x-checkpoint-delay": settings.checkpointDelayMs,
    }),
  ];
}

/** Sets QEMU up for one whole migration after another. */
export function enableSnapshots(support: MigrationSupport): QmpCommand[] {
  return [
    setCapabilities(support, { "x-colo": false, "return-path": false }),
    setParameters({ "max-bandwidth": UNLIMITED_BANDWIDTH }),
  ];
}

/** Gives QEMU the descriptor that comes with this command's bytes, under a name. */
export function giveDescriptor(name: string): QmpCommand {
  return { execute: "getfd", arguments: { fdname: name } };
}

/** Takes back a descriptor that QEMU was given and has not used. */
export function takeBackDescriptor(name: string): QmpCommand {
  return { execute: "closefd", arguments: { fdname: name } };
}

/** Starts a migration; the answer comes before it has begun to send. */
export function startMigration(uri: string): QmpCommand {
  return { execute: "migrate", arguments: { uri } };
}

/**
 * Starts a checkpoint at once, and sets the time to the next one.
 *
 * Setting the delay re-arms QEMU's timer from the last checkpoint's end; in COLO state QEMU also
 * begins a checkpoint.
 */
export function triggerCheckpoint(checkpointDelayMs: number): QmpCommand {
  return setParameters({ "x-checkpoint-delay": checkpointDelayMs });
}

/** Ends COLO on the primary, whose VM goes on by itself: the other side is gone. */
export function lostHeartbeat(): QmpCommand {
  return { execute: "x-colo-lost-heartbeat" };
}

/**
 * Cuts the migration's connections if QEMU hangs in one. To be sent before {@link lostHeartbeat}.
 */
export function yankMigration(): QmpCommand {
  return {
    execute: "yank",
    arguments: { instances: [{ type: "migration" }] },
    outOfBand: true,
  };
}

/** Lets the VM run, as after a completed migration of the snapshot loop. */
export function resumeVm(): QmpCommand {
  return { execute: "cont" };
}

/** Stops the VM. */
export function stopVm(): QmpCommand {
  return { execute: "stop" };
}

/** Asks for every capability of QEMU's migrations: `[{ capability, state }]`. */
export function queryCapabilities(): QmpCommand {
  return { execute: "query-migrate-capabilities" };
}

/** Asks whether the VM runs: `{ running, status }`. */
export function queryStatus(): QmpCommand {
  return { execute: "query-status" };
}

/** A single command: QEMU checks capabilities against each other, so they must change together. */
function setCapabilities(
  support: MigrationSupport,
  wanted: Readonly<Record<string, boolean>>,
): QmpCommand {
  const changes: Record<string, boolean> = { events: true, ...wanted };
  for (const name of UNFIT_CAPABILITIES) changes[name] = false;
  const capabilities = Object.entries(changes)
    .filter(([name]) => name in support.capabilities)
    .map(([capability, state]) => ({ capability, state }));
  return { execute: "migrate-set-capabilities", arguments: { capabilities } };
}

function setParameters(parameters: Readonly<Record<string, number>>): QmpCommand {
  return { execute: "migrate-set-parameters", arguments: parameters };
}
