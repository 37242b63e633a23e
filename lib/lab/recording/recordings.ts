/** Which streams are recorded, and of what machines. */

import type { JsonObject, QmpCommand } from "../../qmp/codec.ts";
import type { QemuSeries } from "../provision/qemu.ts";

/** One recording to make. */
export interface Recording {
  readonly name: string;
  readonly kind: "plain" | "colo";
  readonly qemu: QemuSeries;
  readonly about: string;
  /** QEMU's arguments; `DISK` stands for a raw image that begins with the dirtying boot sector. */
  readonly args: readonly string[];
  readonly capabilities?: readonly string[];
  readonly parameters?: JsonObject;
  /** Executed before the migration starts. */
  readonly before?: readonly QmpCommand[];
  /** Set once the migration has run for `slowMs`; for streams that need several passes. */
  readonly finally?: { readonly slowMs: number; readonly parameters: JsonObject };
  readonly checkpoints?: number;
}

const BARE = ["-machine", "pc", "-m", "16", "-nodefaults"];
const DISK = ["-drive", "file=DISK,format=raw,if=none,id=d0"];
const VIRTIO = [
  "-machine",
  "pc",
  "-m",
  "16",
  "-nodefaults",
  "-serial",
  "null",
  ...DISK,
  "-device",
  "virtio-blk-pci,drive=d0",
  "-netdev",
  "user,id=n0",
  "-device",
  "virtio-net-pci,netdev=n0,romfile=",
];
const Q35 = [
  "-machine",
  "q35",
  "-m",
  "24",
  "-nodefaults",
  "-device",
  "VGA,vgamem_mb=1",
  ...DISK,
  "-device",
  "ide-hd,drive=d0,bus=ide.0",
  "-netdev",
  "user,id=n0",
  "-device",
  "e1000,netdev=n0",
];
const NUMA = [
  "-machine",
  "pc",
  "-m",
  "32",
  "-smp",
  "2",
  "-nodefaults",
  "-object",
  "memory-backend-ram,id=left,size=16M",
  "-object",
  "memory-backend-ram,id=right,size=16M",
  "-numa",
  "node,nodeid=0,cpus=0,memdev=left",
  "-numa",
  "node,nodeid=1,cpus=1,memdev=right",
];
const DIRTYING = [...BARE, "-serial", "null", ...DISK, "-device", "ide-hd,drive=d0"];

// The limit must be above 0 and below the time that all dirty pages take: else 7.2 ends at once.
const SLOW = { "max-bandwidth": 800_000, "downtime-limit": 100 };
const FAST = { "max-bandwidth": 10_000_000_000, "downtime-limit": 2000 };

function plain(qemu: QemuSeries): Recording[] {
  const kind = "plain";
  return [
    { name: `plain-${qemu}-bios`, kind, qemu, about: "a pc that only runs its BIOS", args: BARE },
    {
      name: `plain-${qemu}-virtio`,
      kind,
      qemu,
      about: "virtio-blk and virtio-net; the guest writes to memory all the time",
      args: VIRTIO,
    },
    {
      name: `plain-${qemu}-q35`,
      kind,
      qemu,
      about: "q35 with AHCI disk, e1000 and VGA: many RAM blocks",
      args: Q35,
    },
    {
      name: `plain-${qemu}-numa`,
      kind,
      qemu,
      about: "two memory backends, two NUMA nodes, two CPUs",
      args: NUMA,
    },
    {
      name: `plain-${qemu}-xbzrle`,
      kind,
      qemu,
      about: "several passes over a guest that dirties its memory, with XBZRLE records",
      args: DIRTYING,
      capabilities: ["xbzrle"],
      parameters: SLOW,
      finally: { slowMs: 5000, parameters: FAST },
    },
  ];
}

/** All of them. */
export const RECORDINGS: readonly Recording[] = [
  ...plain("11.1"),
  ...plain("7.2"),
  ...plain("10.0"),
  {
    name: "plain-11.1-return-path",
    kind: "plain",
    qemu: "11.1",
    about: "a plain stream with the return path open: PING, and an end that waits for SHUT",
    args: BARE,
    capabilities: ["return-path"],
  },
  {
    name: "plain-11.1-no-vmdesc",
    kind: "plain",
    qemu: "11.1",
    about: "no VMDESCRIPTION at the end",
    args: ["-machine", "pc,suppress-vmdesc=on", ...BARE.slice(2)],
  },
  {
    name: "plain-11.1-dirty-bitmap",
    kind: "plain",
    qemu: "11.1",
    about: "a disk's dirty bitmap migrates too, an iterable section besides ram: to be refused",
    args: [
      ...BARE,
      "-blockdev",
      "driver=null-co,node-name=disk,size=1048576,read-zeroes=on",
      "-device",
      "virtio-blk-pci,drive=disk",
    ],
    capabilities: ["dirty-bitmaps"],
    before: [{
      execute: "block-dirty-bitmap-add",
      arguments: { node: "disk", name: "written" },
    }],
  },
  {
    name: "plain-11.1-uuid",
    kind: "plain",
    qemu: "11.1",
    about: "CONFIGURATION carries the machine's UUID",
    args: [...BARE, "-uuid", "11111111-2222-3333-4444-555555555555"],
    capabilities: ["validate-uuid"],
  },
  {
    name: "plain-11.1-shared-ram",
    kind: "plain",
    qemu: "11.1",
    about: "x-ignore-shared and RAM in a shared file: CONFIGURATION names the capability, the " +
      "block list has addresses, no page of pc.ram is sent",
    args: [
      "-object",
      "memory-backend-file,id=pc.ram,size=16M,mem-path=RAMFILE,share=on",
      "-machine",
      "pc,memory-backend=pc.ram",
      ...BARE.slice(2),
    ],
    capabilities: ["x-ignore-shared"],
  },
  {
    name: "colo-11.1-idle",
    kind: "colo",
    qemu: "11.1",
    about: "COLO, an idle machine without PCI devices of note",
    args: BARE,
    capabilities: ["x-colo", "return-path"],
    parameters: { "x-checkpoint-delay": 100 },
    checkpoints: 8,
  },
  {
    name: "colo-11.1-dirty",
    kind: "colo",
    qemu: "11.1",
    about: "COLO, a guest that dirties its memory, virtio-blk and virtio-net",
    args: VIRTIO,
    capabilities: ["x-colo", "return-path"],
    parameters: { "x-checkpoint-delay": 200 },
    checkpoints: 8,
  },
  {
    name: "colo-11.1-xbzrle",
    kind: "colo",
    qemu: "11.1",
    about: "COLO with XBZRLE switched on, a guest that dirties its memory",
    args: DIRTYING,
    capabilities: ["x-colo", "return-path", "xbzrle"],
    parameters: { "x-checkpoint-delay": 200 },
    checkpoints: 8,
  },
  {
    name: "colo-10.0",
    kind: "colo",
    qemu: "10.0",
    about: "COLO as far as 10.0 gets under TCG before it hangs",
    args: BARE,
    capabilities: ["x-colo", "return-path"],
    parameters: { "x-checkpoint-delay": 100 },
    checkpoints: 6,
  },
  {
    name: "colo-7.2",
    kind: "colo",
    qemu: "7.2",
    about: "COLO without a return path, as far as 7.2 gets under TCG before it hangs",
    args: BARE,
    capabilities: ["x-colo"],
    parameters: { "x-checkpoint-delay": 100 },
    checkpoints: 6,
  },
];
