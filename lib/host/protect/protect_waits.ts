/** What `kemari protect` waits for before it can protect: QEMU, its VM, the secondary. */
import { getLogger } from "@logtape/logtape";
import { TransportError } from "../../errors.ts";
import { type MigrationSupport, refusalOf } from "../../qmp/migration_support.ts";
import { atStart } from "../../qmp/run_state.ts";
import type { Address } from "../system/address.ts";
import { CONNECT_TIMEOUT_MS, connectPeer } from "../link/peer_connection.ts";
import type { ProtectBoard } from "./protect_board.ts";
import { readMigrationSupport } from "../vm/probe_qemu.ts";
import { QmpClient } from "../vm/qmp_client.ts";
import type { Reactor } from "../system/reactor.ts";
import { staysInColo } from "../vm/release_vm.ts";
import type { SupervisedLine } from "../vm/supervised_line.ts";
import type { PrimaryTapDevices } from "../taps/primary_tap_devices.ts";
import type { LinkGuard } from "../tls/link_guard.ts";
import { VmEnded, type VmWatch } from "../vm/vm_watch.ts";

const log = getLogger(["kemari", "protect"]);

/** The pause between two tries, in milliseconds. */
const RETRY_MS = 1000;
const QEMU_POLL_MS = 100;

/** Connects to QEMU. If kemari serves its disks and NICs, QEMU starts later, and is waited for. */
export async function connectQemu(
  path: string,
  taps: PrimaryTapDevices,
  reactor: Reactor,
  board: ProtectBoard,
  signal: AbortSignal,
): Promise<QmpClient> {
  board.waits("waiting for QEMU");
  for (let told = false;; told = true) {
    try {
      return await reactor.during(QmpClient.connect(path, { reactor }), signal);
    } catch (error) {
      if (taps.isEmpty || !(error instanceof TransportError)) throw error;
      if (!told) log.info("the taps are served; waiting for QEMU at {path}", { path });
      await reactor.sleep(QEMU_POLL_MS, signal);
    }
  }
}

/** What a VM has to do before it can be protected. */
export type WaitsFor = "suspended" | "waiting for the VM to run";

/** The message while waiting for a VM in this run state. */
export function waitsFor(runState: string): WaitsFor {
  return runState === "suspended" ? "suspended" : "waiting for the VM to run";
}

/**
 * Waits until the VM can be protected: somebody may have paused it.
 *
 * @param waits Called with the VM's run state while waiting.
 * @throws {VmEnded} if the VM was shut down, or has moved to another QEMU.
 */
export async function untilProtectable(
  { qmp, watch }: SupervisedLine,
  reactor: Reactor,
  signal: AbortSignal,
  waits: (runState: string) => void = () => {},
): Promise<MigrationSupport> {
  for (let told = "";;) {
    const support = await reactor.during(readMigrationSupport(qmp), signal);
    const found = atStart(support.runState);
    if (found.kind === "over") throw new VmEnded(found.reason);
    const reason = refusalOf(support)?.message ?? support.standsStill;
    if (reason === undefined) return support;
    waits(support.runState);
    if (reason !== told) log.warn("{reason} The VM is unprotected until then", { reason });
    told = reason;
    await untilResumed(watch, reactor, signal);
  }
}

/**
 * Waits until the VM that an incoming migration brings is in this QEMU, be it to run or to stand still.
 *
 * @returns What is found then.
 */
export async function untilArrived(
  { qmp, watch }: SupervisedLine,
  reactor: Reactor,
  signal: AbortSignal,
): Promise<MigrationSupport> {
  for (let told = false;; told = true) {
    const support = await reactor.during(readMigrationSupport(qmp), signal);
    if (support.arrives === undefined) return support;
    if (!told) {
      log.warn("{reason} The taps are served; the VM is protected once it has arrived, and runs", {
        reason: support.arrives,
      });
    }
    await untilResumed(watch, reactor, signal);
  }
}

/** Waits until QEMU can leave COLO without harm to its VM, see {@link staysInColo}. */
export async function untilAwake(
  { qmp, watch }: SupervisedLine,
  reactor: Reactor,
  signal: AbortSignal,
): Promise<void> {
  while (await reactor.during(staysInColo(qmp), signal) !== undefined) {
    await untilResumed(watch, reactor, signal);
  }
}

/** Waits until the VM runs again, or for a while. */
async function untilResumed(watch: VmWatch, reactor: Reactor, signal: AbortSignal): Promise<void> {
  let resumed = false;
  const resume = () => resumed = true;
  const unfollow = watch.follow({
    resumed: resume,
    awake: resume,
    reset: resume,
    shutDown: resume,
  });
  const cancel = reactor.after(RETRY_MS, resume);
  try {
    await reactor.run(() => resumed, signal);
  } finally {
    cancel();
    unfollow();
  }
}

/**
 * Connects to the secondary; except at the first time, waits for a secondary that does not answer
 * yet.
 */
export async function connectSecondary(
  target: Address,
  guard: LinkGuard,
  reactor: Reactor,
  signal: AbortSignal,
  once: boolean,
) {
  let told = "";
  for (;;) {
    try {
      return await connectPeer(target, guard, reactor, CONNECT_TIMEOUT_MS, signal);
    } catch (error) {
      if (once || !(error instanceof TransportError)) throw error;
      // A secondary that does not answer may come by itself. Credentials have to be corrected by an
      // operator.
      const needsSomebody = error.party !== "peer" || target.kind === "ssh";
      if (needsSomebody && error.message !== told) {
        log.warn("{reason}; trying again", { reason: error.message });
        told = error.message;
      }
      await reactor.sleep(RETRY_MS, signal);
    }
  }
}
