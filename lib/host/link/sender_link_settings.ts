/** How a link between the two ends behaves, and what is at its ends. */
import type { VmIdentity } from "../../decisions/whose_replica.ts";
import type { PrimaryConfig } from "../../replica/primary/primary.ts";
import { encodeVm } from "../../replica/vm_fields.ts";
import type { HelloField } from "../../txn/hello_fields.ts";
import type { ImageMarks } from "../image/image_marks.ts";
import type { PrimaryTapDevices } from "../taps/primary_tap_devices.ts";

/** How the two ends of a link tell a dead peer from a quiet one. */
export interface LinkTiming {
  readonly heartbeatMs: number;
  readonly graceMs: number;
  /** Tells that this end stood still, suspended or not; the time since the machine's start by default. */
  readonly bootTimeMs?: () => number;
}

export interface SenderLinkSettings extends LinkTiming, Omit<PrimaryConfig, "taps"> {
  readonly software: string;
  /** Who the VM is, as far as known. */
  readonly vm?: VmIdentity;
  /** What its disks' images bear until the secondary has looked; the link takes it away. */
  readonly marks?: ImageMarks;
  /** The VM's taps; they outlive the link. */
  readonly taps?: PrimaryTapDevices;
}

/** What HELLO says beside that. */
export function helloFields({ vm, marks }: SenderLinkSettings): readonly HelloField[] {
  return [...encodeVm(vm ?? {}), ...marks?.fields ?? []];
}

/** QEMU's side: where its stream comes from and where its return path goes. */
export interface QemuChannel {
  readonly input: number;
  /** Negative where there is none. */
  readonly output: number;
  readonly name: string;
}
