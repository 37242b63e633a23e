import { getLogger } from "@logtape/logtape";
import { atFirstLook } from "../../decisions/first_look.ts";
import type { VmIdentity } from "../../decisions/whose_replica.ts";
import { QemuError } from "../../errors.ts";
import { type MigrationSupport, refusalOf } from "../../qmp/migration_support.ts";
import { OutsideWatch } from "../vm/outside_watch.ts";
import { readMigrationSupport } from "../vm/probe_qemu.ts";
import { readVmIdentity } from "../vm/read_vm_identity.ts";
import type { PrimaryTapDevices } from "../taps/primary_tap_devices.ts";
import type { ProtectParts } from "./protect_context.ts";
import { untilArrived, untilProtectable, waitsFor } from "./protect_waits.ts";

const log = getLogger(["kemari", "protect"]);

/**
 * QEMU does not answer while its main loop waits for its disks: that is no reason to give it up.
 */
const PATIENCE_MS = 600_000;

/** A VM that can be protected, as it was found. */
export interface ProtectableVm {
  readonly support: MigrationSupport;
  readonly mode: "colo" | "snapshot";
  readonly identity: VmIdentity;
  /** Watches for output that does not go through kemari; to be begun, and ended. */
  readonly outside: OutsideWatch;
}

/**
 * Looks at a VM, and waits for one that stands still, or whose taps are here and which has not
 * arrived. What is found is told of.
 *
 * @throws {QemuError} if the VM cannot be protected, or not in the mode asked for; {VmEnded} if it
 *   was shut down; {TransportError} if QEMU is lost.
 */
export async function findProtectableVm(parts: ProtectParts): Promise<ProtectableVm> {
  const { line, settings, reactor, taps, signal, board } = parts;
  const { qmp } = line;
  let support = await reactor.during(readMigrationSupport(qmp), signal);
  if (firstLookAt(support, taps) === "wait-for-arrival") {
    qmp.patienceMs = PATIENCE_MS;
    board.waits(waitsFor(support.runState));
    support = await untilArrived(line, reactor, signal);
  }
  const verdict = firstLookAt(support, taps);
  if (verdict === "refuse") throw refusalOf(support)!;
  qmp.patienceMs = PATIENCE_MS;
  if (verdict === "wait-for-vm") {
    board.waits(waitsFor(support.runState));
    support = await untilProtectable(line, reactor, signal);
  }
  const identity = await reactor.during(readVmIdentity(qmp, settings.vm), signal);
  board.waits("connecting");
  for (const warning of support.warnings) log.warn("{warning}", { warning });
  const outside = new OutsideWatch(qmp, taps);
  await reactor.during(outside.look(), signal);
  return { support, mode: modeOf(support, settings.mode), identity, outside };
}

function firstLookAt(support: MigrationSupport, taps: Pick<PrimaryTapDevices, "isEmpty">) {
  return atFirstLook({
    isArriving: support.arrives !== undefined,
    isRefused: refusalOf(support) !== undefined,
    standsStill: support.standsStill !== undefined,
    hasTaps: !taps.isEmpty,
  });
}

function modeOf(support: MigrationSupport, wanted: "auto" | "colo" | "snapshot") {
  const mode = wanted === "auto" ? support.mode : wanted;
  if (mode === "colo" && !support.colo) {
    throw new QemuError("x-colo", "GenericError", `no COLO: ${support.coloReason}`, {
      hint: "use --mode snapshot",
    });
  }
  log.info("QEMU {version} ({accelerator}), mode {mode}: {reason}", {
    version: support.version.text,
    accelerator: support.accelerator,
    mode,
    reason: wanted === "auto" ? support.reason : "as asked",
  });
  return mode;
}
