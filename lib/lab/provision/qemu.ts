/** Stock QEMUs of several versions, each in a prefix of its own. */

import { QemuError, TransportError, UsageError } from "../../errors.ts";
import { runTool } from "./apt.ts";
import type { ProvisionOptions } from "./cache_dir.ts";
import { ensurePrefix, type PrefixPlan } from "./prefix.ts";

/** The versions that can be provisioned. 11.1 is the one that continuous mode needs. */
export type QemuSeries = "11.1" | "10.0" | "7.2" | "5.2";

/** A QEMU that can be started. */
export interface QemuInstall {
  /** As asked for; with `KEMARI_QEMU` what the program itself says. */
  readonly version: string;
  /** What `--version` says, such as `11.1.3`. */
  readonly fullVersion: string;
  /** Path of the one program to execute: a launcher script that execs QEMU under the same pid. */
  readonly program: string;
  /** `qemu-img` of the same version, if the prefix has one. */
  readonly qemuImg?: string;
  /** The folder that holds everything; absent with `KEMARI_QEMU`. */
  readonly prefix?: string;
}

const SUITES: Record<QemuSeries, readonly string[]> = {
  "11.1": ["trixie", "trixie-backports"],
  "10.0": ["trixie"],
  "7.2": ["bookworm"],
  "5.2": ["bullseye"],
};

/** Written once the program has run, so that later runs need not start it. */
const VERSION_FILE = ".version";

function planOf(version: QemuSeries): PrefixPlan {
  const args = ["-L", "PREFIX/usr/share/qemu", "-L", "PREFIX/usr/share/seabios"];
  return {
    name: `qemu-${version}`,
    set: {
      suites: SUITES[version],
      components: ["main"],
      packages: ["qemu-system-x86", "qemu-utils", "ipxe-qemu", "seabios"],
    },
    programs: [
      { name: "qemu-system-x86_64", path: "usr/bin/qemu-system-x86_64", args },
      { name: "qemu-img", path: "usr/bin/qemu-img" },
      { name: "qemu-io", path: "usr/bin/qemu-io" },
    ],
    check: async (prefix) => {
      const full = await qemuVersionOf(`${prefix}/qemu-system-x86_64`);
      if (!full.startsWith(`${version}.`)) {
        throw new QemuError("setup", "WrongVersion", `wanted ${version}, the archive has ${full}`, {
          hint: "set KEMARI_QEMU=/path/to/qemu-system-x86_64 of the version wanted",
        });
      }
      await Deno.writeTextFile(`${prefix}/${VERSION_FILE}`, full + "\n");
    },
  };
}

/**
 * Runs `program --version`.
 *
 * @returns The version number, such as `11.1.3`.
 * @throws {TransportError} If the program does not run. @throws {QemuError} If it is no QEMU.
 */
async function qemuVersionOf(program: string): Promise<string> {
  const result = await runTool(program, ["--version"]);
  if (result.code !== 0) {
    throw new TransportError(program, "spawn", `--version failed: ${result.stderr.slice(0, 300)}`);
  }
  const match = /QEMU emulator version (\d+\.\d+\.\d+)/.exec(result.stdout);
  if (!match) throw new QemuError("--version", "NotQemu", `${program} does not say it is QEMU`);
  return match[1];
}

/**
 * Provides a QEMU, downloading it first if need be.
 *
 * `KEMARI_QEMU` replaces 11.1, which is then not downloaded. Progress goes to `onProgress`.
 *
 * @throws {UsageError} If `KEMARI_QEMU` is no QEMU, or this host cannot fetch Debian packages.
 * @throws {TransportError} If the archive cannot be reached, or the cache cannot be written.
 */
export async function ensureQemu(
  version: QemuSeries,
  options: ProvisionOptions = {},
): Promise<QemuInstall> {
  const own = Deno.env.get("KEMARI_QEMU");
  if (version === "11.1" && own) {
    let fullVersion: string;
    try {
      fullVersion = await qemuVersionOf(own);
    } catch (cause) {
      throw new UsageError(`KEMARI_QEMU=${own} cannot be used: ${(cause as Error).message}`, {
        cause,
        hint: "name a qemu-system-x86_64 that runs, or unset KEMARI_QEMU to have one downloaded",
      });
    }
    return { version: fullVersion.split(".").slice(0, 2).join("."), fullVersion, program: own };
  }
  const prefix = await ensurePrefix(planOf(version), options);
  return {
    version,
    fullVersion: (await Deno.readTextFile(`${prefix}/${VERSION_FILE}`)).trim(),
    program: `${prefix}/qemu-system-x86_64`,
    qemuImg: `${prefix}/qemu-img`,
    prefix,
  };
}
