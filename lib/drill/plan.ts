/** The choices of a drill: faults, device models, disks; and what belongs to each. */
import type { GuestKernel } from "../lab/guest/guest.ts";

/** What is done to whom. */
export const FAULTS = ["primary", "sender", "link", "receiver", "copy", "apply"] as const;
export type Fault = typeof FAULTS[number];

/** Each fault in a line, for help and progress. */
export const FAULT_TEXT: Readonly<Record<Fault, string>> = {
  primary: "kill -9 of the primary's QEMU and its kemari",
  sender: "kill -9 of the primary's kemari alone",
  link: "the cable between the hosts is cut, every process lives on",
  receiver: "kill -9 of the secondary; it comes back; then the primary is killed",
  copy: "the primary is killed while the disk is copied for the first time",
  apply: "the primary is killed while the secondary applies a transaction",
};

/**
 * What the primary was doing when it died:
 *
 * - `unseen`: not checked; the kill comes at a random moment.
 * - `idle`: none of the following; output of the open epoch may be held.
 * - `checkpoint`: the VM stands still for a checkpoint.
 * - `in-flight`: the VM runs, and a transaction has begun to arrive and is not committed.
 * - `unreleased`: the VM runs, a transaction is committed, and its output is not all released yet.
 */
export const PHASES = ["unseen", "idle", "checkpoint", "in-flight", "unreleased"] as const;
export type Phase = typeof PHASES[number];

export type DiskMode = "replicated" | "shared";

/** Faults that are possible with a disk mode: a shared image is neither copied nor applied. */
export function faultsFor(mode: DiskMode): readonly Fault[] {
  return mode === "replicated"
    ? FAULTS
    : FAULTS.filter((fault) => fault !== "copy" && fault !== "apply");
}

export const DEVICES = ["virtio", "e1000-ahci", "virtio-scsi"] as const;
export type Devices = typeof DEVICES[number];

/** A NIC and a disk as QEMU and the guest know them. */
export interface DeviceModel {
  readonly kernel: GuestKernel;
  /** The disk in the guest. */
  readonly disk: string;
  /** QEMU's arguments for a NIC on netdev `n0` and a disk on drive `d0`. */
  readonly args: readonly string[];
}

const NIC = "netdev=n0,mac=52:54:00:6b:65:6d";

export const DEVICE_MODELS: Readonly<Record<Devices, DeviceModel>> = {
  "virtio": {
    kernel: "cloud",
    disk: "/dev/vda",
    args: ["-device", `virtio-net-pci,${NIC},romfile=`, "-device", "virtio-blk-pci,drive=d0"],
  },
  "e1000-ahci": {
    kernel: "full",
    disk: "/dev/sda",
    args: [
      ...["-device", `e1000,${NIC},romfile=`],
      ...["-device", "ahci,id=ahci", "-device", "ide-hd,bus=ahci.0,drive=d0"],
    ],
  },
  "virtio-scsi": {
    kernel: "cloud",
    disk: "/dev/sda",
    args: [
      ...["-device", `virtio-net-pci,${NIC},romfile=`],
      ...["-device", "virtio-scsi-pci,id=scsi", "-device", "scsi-hd,bus=scsi.0,drive=d0"],
    ],
  },
};

/** The guest's hardware address in every model. */
export const GUEST_MAC = Uint8Array.of(0x52, 0x54, 0x00, 0x6b, 0x65, 0x6d);
