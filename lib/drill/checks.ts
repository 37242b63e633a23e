/** What must hold after a fault, checked in the guest, the images and the client. */
import { ensureTool } from "../lab/provision/tools.ts";
import type { RunningVm } from "../lab/vms/standby_guest.ts";
import type { DrillClient } from "./client.ts";
import type { DrillHosts } from "./hosts.ts";
import { BLOCK_BYTES, LEDGER_BLOCKS, LEDGER_BYTES, readLedger } from "./ledger.ts";
import { say } from "../lab/program/lab_process.ts";
import type { DrillCheck } from "./report.ts";

/** The client still has its first connection, and got answers to the end. */
export function checkConnection(client: DrillClient): DrillCheck {
  return {
    name: "the client kept its connection",
    held: client.error === undefined && client.last > 0,
    detail: client.error ?? `${client.last} answers`,
  };
}

/**
 * Checks the guest where it runs now, stops its work, and checks its image. Afterwards the VM is of
 * no further use.
 */
export async function checkGuest(
  hosts: DrillHosts,
  vm: RunningVm,
  client: DrillClient,
  bootId: string,
): Promise<DrillCheck[]> {
  const boot = await say(vm, "cat /proc/sys/kernel/random/boot_id");
  const logs: DrillCheck[] = [];
  for (const [path, where] of [["/mnt/log", "disk"], ["/mem/log", "memory"]]) {
    const text = await say(vm, `cat ${path}`);
    logs.push(checkNumbers(`the ${where} has every acknowledged number once`, text, client.last));
  }
  await say(vm, "touch /mem/stop; while [ ! -e /mem/stopped ]; do sleep 0.02; done; sync");
  const written = Number(await say(vm, "cat /mem/written"));
  const views = await viewsOfDisk(hosts, vm);
  await say(vm, "umount /mnt");
  const side = vm === hosts.primary ? "primary" : "secondary";
  const ledger = readLedger(await readImage(hosts, side));
  return [
    ...logs,
    {
      name: "the disk has every write, in order, up to the guest's last",
      held: ledger.fault === undefined && ledger.last === written,
      detail: ledger.fault ?? `${ledger.last} of ${written} writes`,
    },
    views,
    await checkFileSystem(hosts.image(side)),
    { name: "it is the same boot of the guest", held: boot === bootId, detail: boot },
  ];
}

/** Numbers from 1 to the last that was acknowledged, each once. */
export function checkNumbers(name: string, text: string, last: number): DrillCheck {
  const numbers = text.trim().split("\n").map(Number);
  const wrong = numbers.findIndex((n, i) => n !== i + 1);
  return {
    name,
    held: numbers.length === last && wrong === -1,
    detail: wrong >= 0
      ? `line ${wrong + 1} is ${numbers[wrong]}`
      : `${numbers.length} lines, the last ${numbers.at(-1)}`,
  };
}

/**
 * The guest's cache of its disk came over in the RAM; what the guest reads after dropping its
 * caches came over as disk writes. If both are of one transaction, they are equal, and equal to the
 * image.
 */
async function viewsOfDisk(hosts: DrillHosts, vm: RunningVm): Promise<DrillCheck> {
  const first = hosts.ledgerOffset / BLOCK_BYTES;
  const read = `{ dd if=${hosts.device.disk} bs=${BLOCK_BYTES} skip=${first} ` +
    `count=${LEDGER_BLOCKS} 2>/dev/null; cat /mnt/log; } | sha256sum`;
  const cached = await say(vm, read);
  const stored = await say(vm, `echo 3 > /proc/sys/vm/drop_caches; ${read}`);
  return {
    name: "the guest's cache and its disk are of one moment",
    held: cached === stored,
    detail: cached === stored
      ? cached.slice(0, 16) + "…"
      : `${cached} in memory, ${stored} on disk`,
  };
}

/**
 * Compares the replica of a replicated disk, as it was when the primary was dead and the VM did not
 * run yet, with the primary's image: the replica must be that image at an earlier moment.
 */
export async function checkReplicaDisk(hosts: DrillHosts): Promise<DrillCheck> {
  const replica = readLedger(await Deno.readFile(hosts.ledgerAtTakeover));
  if (hosts.plan.diskMode === "shared") {
    return {
      name: "the shared disk was that of one moment at the takeover",
      held: replica.fault === undefined && replica.last > 0,
      detail: replica.fault ?? `writes 1 to ${replica.last}`,
    };
  }
  const primary = readLedger(await readImage(hosts, "primary"));
  const ahead = primary.last - replica.last;
  return {
    name: "the replica's disk was the primary's as of the last transaction",
    held: replica.fault === undefined && primary.fault === undefined && replica.last > 0 &&
      ahead >= 0 && ahead < LEDGER_BLOCKS,
    detail: replica.fault ?? primary.fault ??
      `writes 1 to ${replica.last}; ${ahead} more at the primary were never committed`,
  };
}

/** e2fsck finds nothing to do. */
async function checkFileSystem(image: string): Promise<DrillCheck> {
  const e2fsck = await ensureTool("e2fsck");
  const { code } = await new Deno.Command(e2fsck, { args: ["-fn", image] }).output();
  return {
    name: "the file system is clean",
    held: code === 0,
    detail: `e2fsck ended with ${code}`,
  };
}

/**
 * Checks that the disk of a killed primary has everything that the client was promised: the journal
 * is replayed on a copy, as the next mount would do.
 */
export async function checkKilledPrimary(
  hosts: DrillHosts,
  client: DrillClient,
): Promise<DrillCheck[]> {
  const tools = { debugfs: await ensureTool("debugfs"), e2fsck: await ensureTool("e2fsck") };
  const copy = `${hosts.folder}/primary-copy.img`;
  await Deno.copyFile(hosts.image("primary"), copy);
  // 1: errors were found and corrected.
  const { code } = await new Deno.Command(tools.e2fsck, { args: ["-fy", copy] }).output();
  const log = await new Deno.Command(tools.debugfs, { args: ["-R", "cat /log", copy] }).output();
  const numbers = new TextDecoder().decode(log.stdout).trim().split("\n").map(Number);
  const whole = numbers.length >= client.last && numbers.every((n, i) => n === i + 1);
  const ledger = readLedger(await readImage(hosts, "primary"));
  return [
    {
      name: "the primary's disk has every acknowledged number",
      held: whole,
      detail: `${client.last} acknowledged, ${numbers.length} there`,
    },
    {
      name: "the primary's disk is that of one moment",
      held: ledger.fault === undefined && code <= 1,
      detail: ledger.fault ?? `writes 1 to ${ledger.last}; e2fsck ended with ${code}`,
    },
  ];
}

async function readImage(hosts: DrillHosts, side: "primary" | "secondary"): Promise<Uint8Array> {
  using file = await Deno.open(hosts.image(side));
  await file.seek(hosts.ledgerOffset, Deno.SeekMode.Start);
  const bytes = new Uint8Array(LEDGER_BYTES);
  for (let at = 0; at < bytes.length;) {
    const count = await file.read(bytes.subarray(at));
    if (count === null) break;
    at += count;
  }
  return bytes;
}
