/** Whether there is room for a guest's RAM: {@link judgeRoom} decides, the other functions look. */
import { statfsSync } from "node:fs";
import { formatBytes } from "../../units.ts";
import type { RamReserve } from "../../control/receiver_status.ts";

/** What is known when a replica is to be made. */
export interface Room {
  /** Bytes of the guest's RAM, and of what is kept beside it. */
  readonly wantedBytes: number;
  readonly freeBytes: number;
  readonly kind: FileSystemKind;
  /**
   * Memory and swap that this process can still get, by the host and by the limits around the
   * process.
   */
  readonly memoryBytes: number;
}

/**
 * What a reservation is worth there. `memory`: the files are in memory, so that the host's memory
 * is a limit beside the file system's own. `copying`: the file system writes every page to a new
 * place, so that nothing can be reserved. `huge`: it cannot be written page by page.
 */
type FileSystemKind = "memory" | "disk" | "copying" | "huge";

type RoomVerdict =
  | { readonly kind: "enough" }
  | { readonly kind: "unsure"; readonly why: string }
  | { readonly kind: "refused"; readonly why: string };

/**
 * Decides whether a replica is begun. Room that is enough now is reserved later, and may turn out
 * to be too little all the same: the reservation then fails before anything is acknowledged.
 */
export function judgeRoom(room: Room, reserve: RamReserve): RoomVerdict {
  const { wantedBytes, freeBytes, kind, memoryBytes } = room;
  if (kind === "huge") {
    return { kind: "refused", why: "hugetlbfs cannot be written page by page: use a tmpfs" };
  }
  if (reserve === "none") return { kind: "enough" };
  const wants = `the guest's RAM takes up to ${formatBytes(wantedBytes)}`;
  if (freeBytes < wantedBytes) {
    return { kind: "refused", why: `${wants}, and ${formatBytes(freeBytes)} are free` };
  }
  if (kind === "memory" && memoryBytes < wantedBytes) {
    return {
      kind: "refused",
      why: `${wants} of memory, and of that ${formatBytes(memoryBytes)} are free, swap included`,
    };
  }
  if (kind === "copying") {
    return {
      kind: "unsure",
      why:
        "this file system writes each page to a new place: if it fills, a VM that has taken over " +
        "dies, whatever was reserved",
    };
  }
  return { kind: "enough" };
}

const KINDS: Readonly<Record<number, FileSystemKind>> = {
  0x01021994: "memory", // tmpfs
  0x858458f6: "memory", // ramfs
  0x9123683e: "copying", // btrfs
  0x2fc12fc1: "copying", // zfs
  0xca451a4e: "copying", // bcachefs
  0x958458f6: "huge", // hugetlbfs
};

/** Examines a folder's file system, and this host's memory. */
export function lookAtRoom(path: string, wantedBytes: number): Room {
  const { bavail, bsize, type } = statfsSync(path);
  return {
    wantedBytes,
    freeBytes: bavail * bsize,
    kind: KINDS[type >>> 0] ?? "disk",
    memoryBytes: freeMemoryBytes(),
  };
}

/**
 * Memory that this process may still take, limited by the host and by the control groups around the
 * process.
 */
export function freeMemoryBytes({ swap = true } = {}): number {
  const { available, swapFree } = Deno.systemMemoryInfo();
  const free = swap ? available + swapFree : available;
  return Math.min(free, ...limitsOf(readText("/proc/self/cgroup")));
}

/**
 * What each control group around this process leaves, without swap. Page cache counts as free.
 *
 * @param groups The text of /proc/self/cgroup, where the line of cgroup v2 begins with `0::`.
 */
function limitsOf(groups: string): number[] {
  const free: number[] = [];
  for (const line of groups.split("\n")) {
    const [, controllers, path] = line.split(":");
    const isOld = controllers === "memory";
    if (path === undefined || !isOld && controllers !== "") continue;
    const root = isOld ? "/sys/fs/cgroup/memory" : "/sys/fs/cgroup";
    const names = isOld
      ? ["memory.limit_in_bytes", "memory.usage_in_bytes"]
      : ["memory.max", "memory.current"];
    for (let group = path;; group = group.slice(0, group.lastIndexOf("/"))) {
      const [limit, used] = names.map((name) =>
        Number.parseInt(readText(`${root}${group}/${name}`))
      );
      if (limit >= 0 && used >= 0) {
        const stat = readText(`${root}${group}/memory.stat`);
        const cache = Number(/^inactive_file (\d+)$/m.exec(stat)?.[1] ?? 0);
        free.push(Math.max(0, limit - used + cache));
      }
      if (group === "" || group === "/") break;
    }
  }
  return free;
}

function readText(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return "";
  }
}
