/** The settings of `kemari protect`, and what its modes work with. */
import type { LinkSecurity } from "../../decisions/link_security.ts";
import type { MigrationSupport } from "../../qmp/migration_support.ts";
import type { CompressSettings } from "../link/compress_settings.ts";
import type { LinkTiming } from "../link/sender_link_settings.ts";
import type { MigrationChannel } from "../vm/migration_channel.ts";
import type { QmpClient } from "../vm/qmp_client.ts";
import type { Reactor } from "../system/reactor.ts";
import type { OnSecondaryLoss } from "../vm/release_vm.ts";
import type { SenderLink } from "../link/sender_link.ts";
import type { StillVm } from "../vm/still_vm.ts";
import type { SyncTrigger } from "./sync_trigger.ts";
import type { Address } from "../system/address.ts";
import type { SshOptions } from "../system/ssh_address.ts";
import type { ProgressLine } from "../system/progress_line.ts";
import type { SupervisedLine } from "../vm/supervised_line.ts";
import type { PrimaryTapDevices } from "../taps/primary_tap_devices.ts";
import type { LinkGuard } from "../tls/link_guard.ts";
import type { ProtectBoard } from "./protect_board.ts";
import type { SyncOn, TapSettings } from "../taps/tap_settings.ts";
import type { VmWatch } from "../vm/vm_watch.ts";

export interface ProtectSettings extends LinkTiming, CompressSettings {
  readonly target: string;
  readonly security: LinkSecurity;
  /** How a target `ssh:HOST` is reached. */
  readonly ssh?: SshOptions;
  readonly qmp: string;
  readonly mode: "auto" | "colo" | "snapshot";
  readonly commit: "sync" | "async";
  readonly maxInFlightBytes: number;
  readonly syncIntervalMs: number;
  readonly onSecondaryLoss: OnSecondaryLoss;
  readonly retry: boolean;
  readonly control?: string;
  readonly sessionName?: string;
  /** The VM's name, in place of QEMU's UUID and name. */
  readonly vm?: string;
  readonly taps: TapSettings;
  readonly syncOn: SyncOn;
  /** The least time between two synchronizations that held output asks for. */
  readonly syncMinIntervalMs: number;
}

/** What a protection uses from its beginning to its end. All of it stays the caller's. */
export interface ProtectParts {
  readonly line: SupervisedLine;
  readonly settings: ProtectSettings;
  readonly target: Address;
  readonly guard: LinkGuard;
  readonly reactor: Reactor;
  readonly taps: PrimaryTapDevices;
  readonly progress: ProgressLine;
  readonly signal: AbortSignal;
  readonly board: ProtectBoard;
}

/** What both modes work with. */
export interface ProtectContext {
  readonly reactor: Reactor;
  readonly settings: ProtectSettings;
  readonly support: MigrationSupport;
  readonly qmp: QmpClient;
  /** What QEMU has reported on its VM. */
  readonly watch: VmWatch;
  readonly link: SenderLink;
  readonly trigger: SyncTrigger;
  readonly still: StillVm;
  /** How QEMU's migration streams come here. */
  readonly channel: MigrationChannel;
  /** The interval of checkpoints that nothing else asks for: `--sync-interval`, or less. */
  readonly interval: { ms: number };
  /** Temporary; the guardian knows it too. */
  readonly folder: string;
  readonly signal: AbortSignal;
}
