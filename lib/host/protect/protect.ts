import { getLogger } from "@logtape/logtape";
import { parseTarget } from "../link/parse_target.ts";
import type { Address } from "../system/address.ts";
import { ControlServer } from "../system/control_server.ts";
import { ProtectBoard } from "./protect_board.ts";
import type { ProtectParts, ProtectSettings } from "./protect_context.ts";
import { findProtectableVm } from "./protectable_vm.ts";
import { Protection } from "./protection.ts";
import { connectQemu } from "./protect_waits.ts";
import { parseQmpAddress } from "../vm/qmp_address.ts";
import { Reactor } from "../system/reactor.ts";
import type { ProgressLine } from "../system/progress_line.ts";
import { serveUntilUnused } from "../taps/serve_until_unused.ts";
import { SupervisedLine } from "../vm/supervised_line.ts";
import { PrimaryTapDevices } from "../taps/primary_tap_devices.ts";
import { LinkGuard } from "../tls/link_guard.ts";
import { VmEnded, type VmWatch } from "../vm/vm_watch.ts";

export type { ProtectSettings } from "./protect_context.ts";

const log = getLogger(["kemari", "protect"]);

/**
 * `kemari protect`: attaches to a running QEMU and keeps its VM synchronized, also with a secondary
 * that is lost and comes back, until it is interrupted or the VM ends.
 *
 * ```text
 * connecting ──► protecting (COLO or snapshots) ──secondary lost──► VM released ──retry──► connecting
 *                      ├──the VM is shut down──► the secondary is told; a good end
 *                      ├──the guest sleeps, somebody ends QEMU's migration──► told; later: connecting
 *                      └──QEMU lost──► TransportError     signal ──► VM released, InterruptedError
 * ```
 *
 * If the VM's disks or NICs go through kemari, an error that ends the protection ends the process
 * only when QEMU has disconnected from them.
 *
 * @throws {QemuError} QEMU cannot be protected, or refuses; {TransportError} QEMU is lost, or the
 *   secondary is and no retry is wanted.
 */
export async function protect(
  settings: ProtectSettings,
  progress: ProgressLine,
  signal: AbortSignal,
): Promise<void> {
  const target = parseTarget(settings);
  parseQmpAddress(settings.qmp);
  const guard = LinkGuard.open(settings.security, "sender", target);
  await guard.admitTarget(target, signal);
  const reactor = new Reactor();
  guard.keepLooking(reactor);
  const board = new ProtectBoard(target.text);
  let control: ControlServer | undefined;
  let taps: PrimaryTapDevices | undefined;
  try {
    if (settings.control !== undefined) {
      control = await ControlServer.open(settings.control, board.handlers, reactor, signal);
    }
    const opened = taps = await PrimaryTapDevices.open(settings.taps, reactor, signal);
    await protectTapped(settings, target, guard, reactor, opened, progress, signal, board, {
      afterwards: (error, watch) => serveOn(error, watch, opened, reactor, signal),
      atEnd: () => serveToTheEnd(opened, reactor, signal),
    });
  } finally {
    taps?.close();
    control?.close();
    reactor.close();
  }
}

/**
 * Serves the taps until QEMU has disconnected: QEMU flushes its disks while it ends, or stays for
 * long (-no-shutdown), and the guest's last writes have just been released.
 */
async function serveToTheEnd(
  taps: PrimaryTapDevices,
  reactor: Reactor,
  signal: AbortSignal,
): Promise<void> {
  const isNeeded = () => taps.isUsed || taps.isWriting;
  if (isNeeded()) {
    await serveUntilUnused(
      {
        get isUsed() {
          return isNeeded();
        },
      },
      reactor,
      signal,
    );
  }
}

/** What the caller does beside the protection. */
interface ProtectHooks {
  /** Called when an error has ended the protection, while QEMU's monitor is still connected. */
  readonly afterwards?: (error: unknown, watch: VmWatch) => Promise<void>;
  /** Called when the VM was shut down. */
  readonly atEnd?: () => Promise<void>;
}

/**
 * Connects to QEMU and protects its VM, with the taps served: QEMU may start only now, and needs
 * them.
 */
export async function protectTapped(
  settings: ProtectSettings,
  target: Address,
  guard: LinkGuard,
  reactor: Reactor,
  taps: PrimaryTapDevices,
  progress: ProgressLine,
  signal: AbortSignal,
  board: ProtectBoard,
  { afterwards = async () => {}, atEnd = async () => {} }: ProtectHooks = {},
): Promise<void> {
  const qmp = await connectQemu(settings.qmp, taps, reactor, board, signal);
  const line = new SupervisedLine(qmp, reactor);
  try {
    await runProtection({ line, settings, target, guard, reactor, taps, progress, signal, board });
  } catch (error) {
    line.ignoreEnd();
    if (error instanceof VmEnded) {
      log.info("the VM has ended: {reason}", { reason: error.reason });
      if (!signal.aborted) await atEnd();
      return;
    }
    if (!signal.aborted) await afterwards(error, line.watch);
    throw error;
  } finally {
    line.ignoreEnd();
    await qmp.close().catch(() => {});
  }
}

/** Protects the VM, once that is possible. @throws the error that has ended the protection. */
async function runProtection(parts: ProtectParts): Promise<never> {
  const protection = await Protection.begin(await findProtectableVm(parts), parts);
  try {
    return await protection.run();
  } finally {
    await protection.close();
  }
}

/**
 * Serves the taps on after an error: without this process the VM would lose its disks and NICs too.
 */
async function serveOn(
  error: unknown,
  watch: VmWatch,
  taps: PrimaryTapDevices,
  reactor: Reactor,
  signal: AbortSignal,
): Promise<void> {
  if (!taps.isUsed) return;
  log.error("{reason}; serving the taps on, until QEMU disconnects", {
    reason: (error as Error).message,
  });
  // A VM that was stopped sends nothing; if somebody lets it run, it goes on unprotected.
  watch.follow({ resumed: () => taps.passThrough() });
  await serveUntilUnused(taps, reactor, signal);
}
