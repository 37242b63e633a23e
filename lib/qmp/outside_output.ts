/**
 * A VM's output that does not go through kemari: NICs, drives and character devices whose output is
 * not held until its transaction is committed, found by QEMU's answers.
 *
 * @see QEMU net/net.c, `info network`; its words are the same from 5.2 to 11.1 (measured)
 */
import type { QmpCommand } from "./codec.ts";

/** A NIC of the guest, and where its frames go. */
interface GuestNic {
  /** The device's id, or QEMU's name for a device without an id. */
  readonly name: string;
  readonly model: string;
  readonly mac: string;
  /** The back ends to which it is connected; empty if there are none. */
  readonly backends: readonly NicBackend[];
}

/** A network back end of QEMU. */
interface NicBackend {
  readonly name: string;
  /** `tap`, `user`, `stream`, `socket`, `vhost-user`, … */
  readonly type: string;
  /** QEMU's description, such as `ifname=tap0,script=no` or `unix:/run/vm.net`. */
  readonly info: string;
}

/** Output that does not go through kemari. Has JSON values only. */
export interface OutsideOutput {
  /**
   * Why nothing at all is held, if so; the lists then have everything. `null` if something is held.
   */
  readonly unheld: string | null;
  readonly nics: readonly (GuestNic & { readonly text: string })[];
  /** Drives that another NBD server than kemari serves. */
  readonly drives: readonly string[];
  /** Serial ports, channels and other devices that others may listen to. */
  readonly others: readonly string[];
}

const monitor = (line: string): QmpCommand => ({
  execute: "human-monitor-command",
  arguments: { "command-line": line },
});

/** The questions to QEMU. A QEMU that does not know one of them is no error. */
export const OUTSIDE_QUERIES = {
  network: monitor("info network"),
  devices: monitor("info qtree"),
  chardevs: { execute: "query-chardev" },
  block: { execute: "query-block" },
} as const satisfies Record<string, QmpCommand>;

export type OutsideReplies = { readonly [name in keyof typeof OUTSIDE_QUERIES]?: unknown };

/** What goes through kemari. */
export interface HeldPaths {
  /** Sockets that QEMU's netdevs are to connect to. */
  readonly nets: readonly string[];
  /** How many of {@link nets} QEMU is connected to. */
  readonly connected: number;
  /** Sockets of the disks that kemari serves. */
  readonly disks: readonly string[];
  /** QEMU's monitor, which is not output of the guest. */
  readonly monitor?: string;
}

/**
 * Reads `info network`: NICs, and the back ends to which they are connected, directly or by a hub.
 *
 * ```ts
 * import assert from "node:assert/strict";
 * const [nic] = decodeNetwork(
 *   "net0: index=0,type=nic,model=e1000,macaddr=52:54:00:12:34:56\n" +
 *   " \\ n0: index=0,type=tap,ifname=tap0,script=no\n",
 * );
 * assert.equal(nic.model, "e1000");
 * assert.deepEqual(nic.backends, [{ name: "n0", type: "tap", info: "ifname=tap0,script=no" }]);
 * ```
 */
export function decodeNetwork(text: string): GuestNic[] {
  const nics: GuestNic[] = [];
  let members: (Omit<GuestNic, "backends"> | NicBackend)[] = [];
  const flush = () => {
    const backends = members.filter((each): each is NicBackend => "type" in each);
    for (const each of members) if ("model" in each) nics.push({ ...each, backends });
    members = [];
  };
  for (const line of text.split(/\r?\n/)) {
    const isMember = /^ \\ /.test(line);
    // A NIC's filters stand below it: "filters:", then "  - name: type=filter-dump,…".
    if (!isMember && !/^\S/.test(line) || line.startsWith("filters:")) continue;
    // In a hub, the port's own name stands in front: " \ port: tap0: index=0,…".
    const found = /(?:^|[ :] ?)([^\s:]+): index=\d+,type=([^,]+),?(.*)$/.exec(line);
    if (!isMember) flush();
    if (found === null) continue;
    const [, name, type, info] = found;
    if (type !== "nic") members.push({ name, type, info });
    else {
      const [, model = "", mac = ""] = /model=([^,]*)(?:,macaddr=([0-9a-f:]*))?/.exec(info) ?? [];
      members.push({ name, model, mac });
    }
  }
  flush();
  return nics;
}

/** Whether a back end is of a kind that can be connected to a socket of kemari. */
function isStream({ type, info }: NicBackend): boolean {
  return type === "stream" || type === "socket" && !/mcast=|udp=/.test(info);
}

/** Whether a stream is connected. */
function isConnected({ info }: NicBackend): boolean {
  return !/^(|initializing|listening|connecting|disconnected)$/.test(info);
}

/**
 * Whether a back end is connected to a socket of kemari. If the path differs, it may be the same
 * socket in another mount namespace, or one behind a forwarder: then the number of connections has
 * to serve.
 */
function sortNics(nics: readonly GuestNic[], held: HeldPaths): GuestNic[] {
  const isNamed = ({ type, info }: NicBackend) =>
    type === "stream" && held.nets.some((path) => info === `unix:${path}`);
  const unnamed: GuestNic[] = [];
  const outside: GuestNic[] = [];
  let named = 0;
  for (const nic of nics) {
    if (nic.backends.length === 0) continue;
    if (nic.backends.every(isNamed)) named++;
    else if (nic.backends.every(isStream)) unnamed.push(nic);
    else outside.push(nic);
  }
  const mayBeOurs = Math.max(0, held.connected - named);
  const connected = unnamed.filter(({ backends }) => backends.some(isConnected));
  // Which of them is kemari's cannot be known: if there are too many, all are named.
  if (connected.length > mayBeOurs) outside.push(...connected);
  return nics.filter((nic) => outside.includes(nic));
}

/**
 * Finds the output that does not go through kemari.
 *
 * @param held Undefined if not known, as for `doctor`: then everything that could be kemari's
 *   counts as kemari's.
 */
export function judgeOutside(replies: OutsideReplies, held?: HeldPaths): OutsideOutput {
  const nics = typeof replies.network === "string" ? decodeNetwork(replies.network) : [];
  const outside = held === undefined
    ? nics.filter(({ backends }) => !backends.every(isStream))
    : sortNics(nics, held);
  const isUnheld = held === undefined
    ? outside.length > 0 && outside.length === nics.length
    : held.nets.length === 0;
  return {
    unheld: isUnheld && outside.length > 0 ? UNHELD : null,
    nics: outside.map((nic) => ({ ...nic, text: describe(nic) })),
    drives: held === undefined ? [] : foreignDrives(replies.block, held.disks),
    others: [...listenedTo(replies.chardevs, held?.monitor), ...otherDevices(replies.devices)],
  };
}

const UNHELD = "No NIC of this VM goes through kemari (--net): what it sends leaves at once, so " +
  "a takeover may lose the last moments of what it has told others.";

function describe({ name, model, mac, backends }: GuestNic): string {
  const ends = backends.map(({ name, type, info }) => {
    const where = info.split(",").find((part) => /^(ifname|unix|tcp|br|fd|net)[=:]/.test(part));
    return `${type} ${name}${where === undefined ? "" : `, ${where}`}`;
  });
  return `${name} (${model}, ${mac}, ${ends.join("; ")})`;
}

/** Drives that are clients of another NBD server. */
function foreignDrives(reply: unknown, ours: readonly string[]): string[] {
  if (ours.length === 0) return [];
  return listOf(reply).filter((drive) => {
    const inserted = recordOf(drive.inserted);
    const file = typeof inserted?.file === "string" ? inserted.file : "";
    const path = /[?&]socket=([^&]*)/.exec(file)?.[1];
    return inserted?.ro === false && /^nbd/.test(file) && path !== undefined &&
      !ours.some((socket) => socket === path || socket === unescaped(path));
  }).map(({ device, qdev }) => String(device || qdev || "a drive"));
}

function unescaped(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Character devices that others may listen to; not files, nor devices without a back end. */
function listenedTo(reply: unknown, monitorPath: string | undefined): string[] {
  return listOf(reply).filter(({ label, filename }) => {
    if (typeof label !== "string" || typeof filename !== "string") return false;
    if (/^compat_monitor\d|^(char)?monitor\b|qmp|^mon\d*$/i.test(label)) return false;
    if (monitorPath !== undefined && filename.includes(`unix:${monitorPath},`)) return false;
    return /^(disconnected:)?(unix|tcp|telnet|websocket|udp|pty|vsock|fd)\b|^(stdio|pipe|serial)/
      .test(filename);
  }).map(({ label, filename }) =>
    `${label} (${String(filename).replace(/^disconnected:/, "").split(",")[0]})`
  );
}

/** Devices with a connection of their own to the outside. */
const REACHING = /^(vhost-|ivshmem|usb-host|usb-redir|virtio-9p|scsi-generic|scsi-block|vfio)/;

function otherDevices(reply: unknown): string[] {
  if (typeof reply !== "string") return [];
  const found = new Set<string>();
  for (const [, type, id] of reply.matchAll(/^ *dev: ([^,]+), id "([^"]*)"$/gm)) {
    // Each is in the tree twice, as the plugged device and as the device inside; only one is named.
    if (REACHING.test(type) && !/-device$/.test(type)) {
      found.add(id === "" ? type : `${id} (${type})`);
    }
  }
  return [...found];
}

/** Warnings for an operator, in whole sentences; the same sentence for the same finding. */
export function sayOutside({ unheld, nics, drives, others }: OutsideOutput): string[] {
  const sentences = unheld !== null
    ? [unheld]
    : nics.map(({ text }) =>
      `NIC ${text} does not go through kemari: what it sends leaves at once, and who hears it ` +
      `may be ` +
      "told what the secondary does not know. Give it a --net, or nothing to say."
    );
  if (drives.length > 0) {
    sentences.push(
      `Drives of another NBD server than kemari: ${drives.join(", ")}. What is written there is ` +
        "ahead of the secondary's state.",
    );
  }
  if (others.length > 0 && unheld === null) {
    sentences.push(
      `Not held until it is committed either: ${
        others.join(", ")
      }. Who listens there may hear what ` +
        "a takeover takes back.",
    );
  }
  return sentences;
}

function listOf(value: unknown): Record<string, unknown>[] {
  return Array.isArray(value) ? value.filter((each) => recordOf(each) !== undefined) : [];
}

function recordOf(value: unknown): Record<string, unknown> | undefined {
  return typeof value === "object" && value !== null ? value as Record<string, unknown> : undefined;
}
