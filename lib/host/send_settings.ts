import type { LinkSecurity } from "../decisions/link_security.ts";
import type { CompressSettings } from "./link/compress_settings.ts";
import type { SenderLinkSettings } from "./link/sender_link_settings.ts";
import type { SshOptions } from "./system/ssh_address.ts";
import type { SyncOn, TapSettings } from "./taps/tap_settings.ts";

/** How `kemari send` behaves. */
export interface SendSettings
  extends
    Omit<SenderLinkSettings, "software" | "taps" | "compression" | "vm" | "marks">,
    CompressSettings {
  readonly target: string;
  readonly security: LinkSecurity;
  /** How a target `ssh:HOST` is reached. */
  readonly ssh?: SshOptions;
  readonly control?: string;
  readonly sessionName?: string;
  /** The VM's name, in place of QEMU's UUID and name. */
  readonly vm?: string;
  /** The QMP socket by which to let a VM run that COLO has stopped, when the secondary is lost. */
  readonly qmp?: string;
  readonly taps: TapSettings;
  readonly syncOn: SyncOn;
  readonly syncMinIntervalMs: number;
  /** QEMU's interval between checkpoints, which every request for a synchronization sets. */
  readonly syncIntervalMs: number;
}
