/** Debian programs for the guest, each with the libraries that it loads. */

import { QemuError, UsageError } from "../../errors.ts";
import { runTool } from "../provision/apt.ts";
import type { ProvisionOptions } from "../provision/cache_dir.ts";
import { ensurePrefix, libraryPath, LOADER_COPY } from "../provision/prefix.ts";
import type { CpioEntry } from "./cpio.ts";
import type { GuestExtras } from "./guest.ts";

interface ProgramSource {
  readonly packageNames: readonly string[];
  readonly components?: readonly string[];
  /** The program in the package. */
  readonly path: string;
  /** Packages that the program does not need to run. */
  readonly assumed?: readonly string[];
}

const PROGRAMS = {
  fio: { packageNames: ["fio"], path: "usr/bin/fio", assumed: ["python3"] },
  iperf3: { packageNames: ["iperf3"], path: "usr/bin/iperf3" },
  iozone: {
    packageNames: ["iozone3"],
    components: ["main", "non-free"],
    path: "usr/bin/iozone",
  },
  mke2fs: { packageNames: ["e2fsprogs"], path: "sbin/mke2fs" },
  socat: { packageNames: ["socat"], path: "usr/bin/socat" },
} satisfies Record<string, ProgramSource>;

export type GuestProgram = keyof typeof PROGRAMS;

/**
 * Members for the guest's initramfs (`ensureGuest({ extras })`): the programs in `/opt`, since
 * busybox's own names shadow what stands in `/bin`; their libraries in `/lib`; the loader in
 * `/lib64`. In the guest `/opt/fio --version` then runs.
 *
 * @throws {TransportError} The archive cannot be reached.
 * @throws {QemuError} A library is missing from the packages.
 */
export async function guestPrograms(
  names: readonly GuestProgram[],
  options: ProvisionOptions = {},
): Promise<GuestExtras> {
  const files = new Map<string, string>();
  for (const name of names) {
    const program: ProgramSource | undefined = PROGRAMS[name];
    if (program === undefined) throw new UsageError(`no program for the guest is called ${name}`);
    const { packageNames, components, path, assumed } = program;
    const prefix = await ensurePrefix({
      name: `guest-program-${name}`,
      set: {
        suites: ["bookworm"],
        components: components ?? ["main"],
        packages: packageNames,
        assumed,
      },
      programs: [{ name, path }],
    }, options);
    files.set(`opt/${name}`, `${prefix}/${path}`);
    for (const library of await librariesOf(prefix, path, options)) {
      files.set(`lib/${library.slice(library.lastIndexOf("/") + 1)}`, library);
    }
    files.set("lib64/ld-linux-x86-64.so.2", `${prefix}/${LOADER_COPY}`);
  }
  const entries: CpioEntry[] = ["lib64", "opt"].map((path) => ({ kind: "folder", path }));
  for (const [path, source] of [...files].sort()) {
    entries.push({ kind: "file", path, data: await Deno.readFile(source), mode: 0o755 });
  }
  return { name: [...names].sort().join("-"), entries };
}

/** The libraries that a program loads, as the prefix's own loader finds them, without running it. */
async function librariesOf(
  prefix: string,
  path: string,
  options: ProvisionOptions,
): Promise<string[]> {
  const { code, stdout, stderr } = await runTool(`${prefix}/${LOADER_COPY}`, [
    "--library-path",
    libraryPath(prefix),
    "--list",
    `${prefix}/${path}`,
  ], options);
  const missing = /^\s*(\S+) => not found/m.exec(stdout)?.[1];
  if (code !== 0 || missing !== undefined) {
    throw new QemuError("guest", "NoLibrary", `${path} lacks ${missing ?? stderr.trim()}`, {
      hint: "the Debian archive has changed its layout: report this",
    });
  }
  return [...stdout.matchAll(/ => (\/\S+) \(0x/g)].map(([, file]) => file)
    .filter((file) => file !== `${prefix}/${LOADER_COPY}`);
}
