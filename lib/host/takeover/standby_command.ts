/**
 * The command line of a standby QEMU: the operator's command, with its RAM moved into files.
 *
 * The primary's command need not change. A RAM block's name on the wire is its back end's id, so a
 * back end `pc.ram` fits a primary with ordinary RAM.
 */
import { QemuError, UsageError } from "../../errors.ts";
import type { BlockFile } from "../ram_dir/file_pages.ts";

/** How a standby is started. */
interface StandbyLaunch {
  /** Whether writes of the VM go to the files; otherwise its pages are private copies. */
  readonly share: boolean;
  /** The path of QEMU's QMP socket. */
  readonly qmpPath: string;
}

/** The command to start, and the RAM blocks that it takes from files. */
interface StandbyPlan {
  readonly command: string;
  readonly shared: readonly BlockFile[];
}

/** Matches `-object memory-backend-…`, separated by a space or `=`, quoted or not. */
const BACKEND =
  /(?<=^|\s)(["']?)--?object\1(?:\s+|=)(["']?)(memory-backend-[a-z]+,[^"'\s]*)\2(?=\s|$)/g;
/** The name that QEMU's machines give to RAM without a back end: `pc.ram`, `mach-virt.ram`. */
const MAIN_RAM = /^[\w-]+\.ram$/;
/** The options that a back end keeps: those on the place of its memory, not on its kind. */
const KEPT_PROPERTIES = /^(host-nodes|policy|merge|dump)(\.\d+)?=/;

/**
 * Refuses commands that cannot become a standby.
 *
 * @throws {UsageError} what is wrong with the command.
 */
export function checkStandbyCommand(command: string): void {
  if (/(^|\s)["']?--?incoming["']?(\s|=|$)/.test(command)) {
    throw new UsageError("--standby contains -incoming: kemari adds its own", {
      hint: "write the command that starts the same machine, up to its last device",
    });
  }
  if (/--?object["']?(\s+|=)["']?\{/.test(command)) {
    throw new UsageError("--standby has an -object written as JSON, which kemari cannot read", {
      hint: "write it as -object memory-backend-ram,id=…,size=…",
    });
  }
}

/**
 * Moves the RAM of an operator's command into files.
 *
 * Back ends in the command become files of the same id. If there are none, the machine's main RAM
 * gets a back end, for the primary's block called `….ram`.
 *
 * @param files The files of the primary's RAM blocks.
 * @throws {QemuError} if the command and the blocks do not belong together.
 */
export function planStandby(
  command: string,
  files: readonly BlockFile[],
  launch: StandbyLaunch,
): StandbyPlan {
  const shared: BlockFile[] = [];
  const names = files.map(({ name }) => name).join(", ");
  let text = command.replaceAll(BACKEND, (_all, _flagQuote, _quote, properties: string) => {
    const fields = properties.split(/(?<!,),(?!,)/);
    const id = fields.find((field) => field.startsWith("id="))?.slice(3);
    const file = files.find(({ name }) => name === id || name === `/objects/${id}`);
    if (id === undefined || file === undefined) {
      throw standbyMismatch(
        `its RAM back end ${id ?? "without an id"} is not among the primary's RAM blocks ` +
          `(${names})`,
      );
    }
    shared.push(file);
    return backend(id, file, launch.share, fields.filter((field) => KEPT_PROPERTIES.test(field)));
  });
  if (shared.length === 0) {
    const file = files.find(({ name }) => MAIN_RAM.test(name));
    if (file === undefined) {
      throw standbyMismatch(`it has no RAM back end, and the primary's RAM is in ${names}`);
    }
    shared.push(file);
    text += ` ${backend(file.name, file, launch.share, [])} -machine memory-backend=${file.name}`;
  }
  const qmp = quoteWord(`unix:${launch.qmpPath.replaceAll(",", ",,")},server=on,wait=off`);
  return { command: `${text} -S -incoming defer -qmp ${qmp}`, shared };
}

function backend(id: string, file: BlockFile, share: boolean, kept: readonly string[]): string {
  const path = file.path.replaceAll(",", ",,");
  const fields = [
    `memory-backend-file,id=${id},size=${file.lengthBytes},mem-path=${path}`,
    `share=${share ? "on" : "off"}`,
    ...kept,
  ];
  return `-object ${quoteWord(fields.join(","))}`;
}

/** The command of a cold start, which gets the whole stream on stdin. */
export function coldCommand(command: string, qmpPath: string): string {
  return `${command} -incoming fd:0 -qmp ${
    quoteWord(`unix:${qmpPath.replaceAll(",", ",,")},server=on,wait=off`)
  }`;
}

/** The error for a standby that is another machine than the primary. */
export function standbyMismatch(what: string): QemuError {
  return new QemuError("standby", "Mismatch", `this is not the primary's machine: ${what}`, {
    party: "standby",
    hint: "give --standby the primary's own -machine, -m, -smp, RAM back ends and devices",
  });
}

/** A RAM block in the output of `info ramblock`. */
interface StandbyBlock {
  readonly name: string;
  readonly usedBytes: number;
  /** Blocks of firmware tables may grow to this size when a VM is loaded. */
  readonly totalBytes: number;
}

/** Reads HMP's `info ramblock`: name, page size, then hexadecimal offset, used and total. */
export function parseRamBlocks(text: string): StandbyBlock[] {
  const blocks: StandbyBlock[] = [];
  for (const line of text.split("\n")) {
    const found = /^\s*(\S+)\s+\d+ \w+\s+0x[0-9a-f]+\s+0x([0-9a-f]+)\s+0x([0-9a-f]+)/.exec(line);
    if (found === null) continue;
    blocks.push({
      name: found[1],
      usedBytes: Number.parseInt(found[2], 16),
      totalBytes: Number.parseInt(found[3], 16),
    });
  }
  return blocks;
}

/**
 * Reads HMP's `info mtree`: the offset of each RAM block within the region that holds it, which a
 * stream for `x-ignore-shared` has to contain. A block without an entry is at 0.
 */
export function parseBlockAddresses(text: string): Map<string, number> {
  const addresses = new Map<string, number>();
  for (const line of text.split(/\r?\n/)) {
    const found = /^\s+([0-9a-f]{16})-[0-9a-f]{16} \(prio -?\d+, ram\): (\S+)$/.exec(line);
    if (found === null) continue;
    const name = found[2].replace(/^\/objects\//, "");
    if (!addresses.has(name)) addresses.set(name, Number.parseInt(found[1], 16));
  }
  return addresses;
}

/** @throws {QemuError} unless the standby has the primary's RAM blocks. */
export function compareBlocks(
  primary: readonly { readonly name: string; readonly lengthBytes: number }[],
  standby: readonly StandbyBlock[],
): void {
  for (const { name, lengthBytes } of primary) {
    const found = standby.find((block) => block.name === name);
    if (found === undefined) {
      throw standbyMismatch(
        `the primary has RAM ${name}, which belongs to a device that is missing here`,
      );
    }
    const { usedBytes, totalBytes } = found;
    if (usedBytes === lengthBytes || totalBytes > usedBytes && lengthBytes <= totalBytes) continue;
    throw standbyMismatch(
      `RAM ${name} has ${lengthBytes} bytes at the primary and ${usedBytes} ` +
        `here`,
    );
  }
  const extra = standby.find(({ name }) => !primary.some((block) => block.name === name));
  if (extra !== undefined) {
    throw standbyMismatch(`it has RAM ${extra.name}, which the primary has not: a device too many`);
  }
}

/** Quotes a word for a shell. */
export function quoteWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
