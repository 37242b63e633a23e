import type { LinkSecurity } from "../decisions/link_security.ts";
import { UsageError } from "../errors.ts";
import type { DiskTapAddress } from "./disk/disk_tap_address.ts";
import type { LinkTiming } from "./link/sender_link_settings.ts";
import type { NetTapAddress } from "./net/net_tap_address.ts";
import { type ListenAddress, parseAddress } from "./system/address.ts";
import { wasClosed } from "./system/channel.ts";
import { checkStandbyCommand } from "./takeover/standby_command.ts";
import type { ReplaySettings } from "./taps/secondary_tap_devices.ts";
import type { RamReserve } from "../control/receiver_status.ts";

/** How `kemari recv` behaves. */
export interface RecvSettings extends LinkTiming {
  readonly listen: string;
  readonly security: LinkSecurity;
  readonly onLoss: "wait" | "activate" | "exit";
  readonly fence?: string;
  readonly fenceTimeoutMs: number;
  readonly exec?: string;
  /** The folder for the RAM's files; without it the RAM is in memory. */
  readonly ramDir?: string;
  /** Whether another VM may take the place of the one that is kept. */
  readonly replace?: boolean;
  /** Whether to reserve room there for all of the RAM. */
  readonly ramReserve: RamReserve;
  /** The command of a QEMU that runs beside the replica and takes the VM over. */
  readonly standby?: string;
  /** How many bytes a transaction may stage; half of the free memory if undefined. */
  readonly maxTransactionBytes?: number;
  readonly control?: string;
  /** The primary's taps, with the same names, for the QEMU that takes over. */
  readonly nets: readonly NetTapAddress[];
  readonly disks: readonly DiskTapAddress[];
  readonly replay: ReplaySettings;
}

/** Whether the VM goes to the reader of stdout, rather than to a command. */
export function goesToStdout({ exec, standby }: RecvSettings): boolean {
  return exec === undefined && standby === undefined;
}

/**
 * Checks that the settings fit together, before anything is opened.
 *
 * @returns The address to listen on.
 * @throws {UsageError}
 */
export function checkRecvSettings(settings: RecvSettings): ListenAddress {
  const listen = parseAddress(settings.listen);
  if (listen.kind === "ssh") {
    throw new UsageError("nobody listens by ssh: ssh:HOST is a target of send and protect", {
      hint:
        "listen at HOST:PORT or unix:PATH, with --control PATH: senders then come by ssh:HOST:PATH",
    });
  }
  const toStdout = goesToStdout(settings);
  if (settings.standby !== undefined) checkStandbyCommand(settings.standby);
  if (listen.kind === "stdio" && toStdout) {
    throw new UsageError("with stdio: stdout belongs to the sender, not to the activated stream", {
      hint: 'give --exec "qemu-system-x86_64 … -incoming fd:0"',
    });
  }
  if (toStdout && wasClosed(1)) {
    throw new UsageError("stdout is closed: the activated stream would be lost", {
      hint: 'pipe it into "qemu-system-x86_64 … -incoming fd:0", or into a file, or give --exec',
    });
  }
  return listen;
}
