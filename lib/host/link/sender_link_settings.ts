/** Settings of a link between the two ends, and what is at its ends. */
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
  /**
   * A clock by which this end notices that it stood still, suspended or not; by default the time
   * since the machine's start.
   */
  readonly bootTimeMs?: () => number;
}

export interface SenderLinkSettings extends LinkTiming, Omit<PrimaryConfig, "taps"> {
  readonly software: string;
  /** The VM's identity, as far as known. */
  readonly vm?: VmIdentity;
  /**
   * The marks on its disks' images until the secondary has looked for them; the link removes them.
   */
  readonly marks?: ImageMarks;
  /** The VM's taps; they outlive the link. */
  readonly taps?: PrimaryTapDevices;
}

/** The fields of HELLO for these settings. */
export function helloFields({ vm, marks }: SenderLinkSettings): readonly HelloField[] {
  return [...encodeVm(vm ?? {}), ...marks?.fields ?? []];
}

/** QEMU's side: where its stream comes from and where its return path goes. */
export interface QemuChannel {
  readonly input: number;
  /** Negative if there is no return path. */
  readonly output: number;
  readonly name: string;
}
