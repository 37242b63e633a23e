/** A set of Debian packages unpacked side by side with the system's own, ready to execute. */

import { createHash } from "node:crypto";
import { KemariError, QemuError, TransportError } from "../../errors.ts";
import { AptArchive, type PackageSet, requireDebianTools, ROOM_HINT, runTool } from "./apt.ts";
import { cacheDir, exists, type ProvisionOptions, shellQuote, withLock } from "./cache_dir.ts";

/** Raised when the layout of a finished prefix changes, so that old ones are built again. */
const LAYOUT = 1;

/** A program of the prefix that gets a launcher script. */
interface Program {
  /** Name of the launcher, in the prefix itself. */
  readonly name: string;
  /** The program, relative to the prefix. */
  readonly path: string;
  /** Arguments that always come first; `PREFIX/` at the start stands for the prefix. */
  readonly args?: readonly string[];
}

/** What a prefix is to contain. */
export interface PrefixPlan {
  /** Folder name in the cache. */
  readonly name: string;
  readonly set: PackageSet;
  readonly programs: readonly Program[];
  /** Runs before the prefix counts as complete; it throws if the prefix is no good. */
  readonly check?: (prefix: string) => Promise<void>;
}

interface Marker {
  readonly plan: string;
  /** Where it was built: launchers hold absolute paths, so a moved cache is built again. */
  readonly prefix?: string;
  readonly packages: readonly string[];
}

/**
 * The path of a prefix that holds what `plan` asks for, built first if need be.
 *
 * An existing complete prefix costs one file read and no network. A build that was interrupted
 * goes on with what it had downloaded; a prefix appears under its name only when complete.
 */
export async function ensurePrefix(
  plan: PrefixPlan,
  options: ProvisionOptions = {},
): Promise<string> {
  const prefix = `${cacheDir()}/${plan.name}`;
  const planHash = hashPlan(plan);
  if (await isComplete(prefix, planHash)) return prefix;
  await requireDebianTools();
  await makeFolder(cacheDir());
  return await withLock(`${cacheDir()}/setup.lock`, options, async () => {
    if (await isComplete(prefix, planHash)) return prefix;
    try {
      await build(prefix, plan, planHash, options);
    } catch (cause) {
      if (cause instanceof KemariError) throw cause;
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new TransportError(prefix, "write", reason, {
        cause,
        hint: ROOM_HINT,
      });
    }
    return prefix;
  });
}

async function build(
  prefix: string,
  plan: PrefixPlan,
  planHash: string,
  options: ProvisionOptions,
): Promise<void> {
  const say = (line: string) => options.onProgress?.(`${plan.name}: ${line}`);
  const narrated = { ...options, onProgress: say };
  const archive = new AptArchive(`${cacheDir()}/apt/${plan.name}`, plan.set, narrated);
  say(`reading the indexes of Debian ${plan.set.suites.join(", ")}`);
  const files = await archive.resolve();
  await archive.download(files);

  const unfinished = `${prefix}.unfinished`;
  await Deno.remove(unfinished, { recursive: true }).catch(ignoreMissing);
  await makeFolder(unfinished);
  let count = 0;
  const queue = [...files];
  const unpack = async () => {
    for (let file = queue.shift(); file; file = queue.shift()) {
      const result = await runTool(
        "dpkg-deb",
        ["-x", `${archive.archivesDir}/${file.name}`, unfinished],
        options,
      );
      if (result.code !== 0) {
        throw new TransportError(file.name, "read", `dpkg-deb cannot unpack it: ${result.stderr}`, {
          hint: ROOM_HINT,
        });
      }
      if (++count % 20 === 0 || count === files.length) {
        say(`unpacking: ${count} of ${files.length} packages`);
      }
    }
  };
  await Promise.all([unpack(), unpack()]);

  if (plan.programs.length > 0) {
    await copyLoader(unfinished);
    const namesPrograms = await loaderNamesPrograms(unfinished);
    for (const program of plan.programs) {
      const script = launcher(prefix, program, namesPrograms);
      await Deno.writeTextFile(`${unfinished}/${program.name}`, script, { mode: 0o755 });
    }
  }
  const marker: Marker = { plan: planHash, prefix, packages: files.map((file) => file.name) };
  await Deno.remove(prefix, { recursive: true }).catch(ignoreMissing);
  await Deno.rename(unfinished, prefix);
  await plan.check?.(prefix);
  await Deno.writeTextFile(`${prefix}/.complete`, JSON.stringify(marker, null, 1) + "\n");
  await Deno.remove(archive.folder, { recursive: true }).catch(ignoreMissing);
  say(`ready in ${prefix}`);
}

async function isComplete(prefix: string, planHash: string): Promise<boolean> {
  try {
    const marker = JSON.parse(await Deno.readTextFile(`${prefix}/.complete`)) as Marker;
    return marker.plan === planHash && (marker.prefix ?? prefix) === prefix;
  } catch {
    return false;
  }
}

function hashPlan(plan: PrefixPlan): string {
  const text = JSON.stringify([LAYOUT, plan.name, plan.set, plan.programs]);
  return createHash("sha256").update(text).digest("hex");
}

const LIBRARY_FOLDERS = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib", "lib"];
/** Some packages keep libraries of their own apart. */
const PRIVATE_FOLDERS = ["pulseaudio", "ceph"].map((name) => `usr/lib/x86_64-linux-gnu/${name}`);
const LOADER = "ld-linux-x86-64.so.2";
/** The loader stands beside the programs: QEMU looks for its data relative to the executable. */
export const LOADER_COPY = "usr/bin/kemari-ld";

async function copyLoader(prefix: string): Promise<void> {
  for (const folder of LIBRARY_FOLDERS) {
    const path = `${prefix}/${folder}/${LOADER}`;
    if (!await exists(path)) continue;
    await makeFolder(`${prefix}/usr/bin`);
    await Deno.copyFile(await Deno.realPath(path), `${prefix}/${LOADER_COPY}`);
    await Deno.chmod(`${prefix}/${LOADER_COPY}`, 0o755);
    return;
  }
  throw new QemuError("setup", "NoLoader", `the packages bring no ${LOADER}`, {
    hint: "the Debian archive has changed its layout: report this",
  });
}

/**
 * Whether the prefix's loader takes `--argv0`, which came with glibc 2.33: Debian 11's does not, and
 * its programs call themselves by their whole path.
 */
async function loaderNamesPrograms(prefix: string): Promise<boolean> {
  const loader = await Deno.readFile(`${prefix}/${LOADER_COPY}`);
  return new TextDecoder("latin1").decode(loader).includes("--argv0");
}

/** Where a prefix's programs find their libraries, for the loader's `--library-path`. */
export function libraryPath(prefix: string): string {
  return [...LIBRARY_FOLDERS, ...PRIVATE_FOLDERS].map((folder) => `${prefix}/${folder}`).join(":");
}

/** The launcher script: the prefix's own loader and libraries, so that the host's never matter. */
function launcher(prefix: string, program: Program, namesPrograms: boolean): string {
  const words = [
    `${prefix}/${LOADER_COPY}`,
    "--library-path",
    libraryPath(prefix),
    ...(namesPrograms ? ["--argv0", program.name] : []),
    `${prefix}/${program.path}`,
    ...(program.args ?? []).map((word) =>
      word.startsWith("PREFIX/") ? `${prefix}/${word.slice("PREFIX/".length)}` : word
    ),
  ];
  return "#!/bin/sh\n# exec keeps the process id: whoever starts this can signal QEMU itself.\n" +
    "unset LD_LIBRARY_PATH LD_PRELOAD\n" +
    `export QEMU_MODULE_DIR=${shellQuote(`${prefix}/usr/lib/x86_64-linux-gnu/qemu`)}\n` +
    `exec ${words.map(shellQuote).join(" ")} "$@"\n`;
}

async function makeFolder(path: string): Promise<void> {
  try {
    await Deno.mkdir(path, { recursive: true });
  } catch (cause) {
    throw new TransportError(path, "write", "the folder cannot be made", {
      cause,
      hint: "make it writable, or set XDG_CACHE_HOME to a folder that is",
    });
  }
}

function ignoreMissing(error: unknown): void {
  if (!(error instanceof Deno.errors.NotFound)) throw error;
}
