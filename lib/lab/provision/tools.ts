/** Programs that tests and benchmarks compare with, from Debian where the host lacks them. */

import { UsageError } from "../../errors.ts";
import { findProgram, type ProvisionOptions } from "./cache_dir.ts";
import { ensurePrefix } from "./prefix.ts";

interface Tool {
  readonly packageNames: readonly string[];
  /** Packages that these depend on, and do not need when they are only unpacked. */
  readonly assumed?: readonly string[];
  readonly path: string;
  /** Arguments that always come first. */
  readonly args?: readonly string[];
  /** Never the host's own. */
  readonly provisionedOnly?: boolean;
}

const TOOLS: Record<string, Tool> = {
  nasm: { packageNames: ["nasm"], path: "usr/bin/nasm" },
  socat: { packageNames: ["socat"], path: "usr/bin/socat" },
  etcd: { packageNames: ["etcd-server"], path: "usr/bin/etcd" },
  openssl: { packageNames: ["openssl"], path: "usr/bin/openssl" },
  ssh: { packageNames: ["openssh-client"], assumed: ["adduser", "passwd"], path: "usr/bin/ssh" },
  "ssh-keygen": {
    packageNames: ["openssh-client"],
    assumed: ["adduser", "passwd"],
    path: "usr/bin/ssh-keygen",
  },
  sshd: {
    packageNames: ["openssh-server"],
    assumed: [
      "adduser",
      "debconf",
      "dpkg",
      "init-system-helpers",
      "libpam-modules",
      "libpam-runtime",
      "lsb-base",
      "openssh-client",
      "openssh-sftp-server",
      "passwd",
      "procps",
      "runit-helper",
      "ucf",
    ],
    path: "usr/sbin/sshd",
    // Later ones are several programs, which know each other by paths.
    provisionedOnly: true,
  },
  iperf3: { packageNames: ["iperf3"], path: "usr/bin/iperf3" },
  nbdkit: { packageNames: ["nbdkit"], path: "usr/bin/nbdkit" },
  nbdinfo: { packageNames: ["libnbd-bin"], path: "usr/bin/nbdinfo" },
  nbdcopy: { packageNames: ["libnbd-bin"], path: "usr/bin/nbdcopy" },
  mke2fs: { packageNames: ["e2fsprogs"], path: "sbin/mke2fs" },
  debugfs: { packageNames: ["e2fsprogs"], path: "sbin/debugfs" },
  e2fsck: { packageNames: ["e2fsprogs"], path: "sbin/e2fsck" },
  // The program of that name is a script that asks for the first Python of the search path, which
  // may be one that does not know libnbd.
  nbdsh: {
    packageNames: ["libnbd-bin", "python3-libnbd", "python3.11"],
    path: "usr/bin/python3.11",
    args: ["-m", "nbd"],
    provisionedOnly: true,
  },
};

/** Names that `ensureTool` knows. */
export function toolNames(): string[] {
  return Object.keys(TOOLS);
}

/**
 * A path at which the tool can be executed: the host's own, or one provisioned for it.
 *
 * @throws {UsageError} If no such tool is known.
 */
export async function ensureTool(name: string, options: ProvisionOptions = {}): Promise<string> {
  const tool = TOOLS[name];
  if (!tool) {
    throw new UsageError(`no tool is called ${name}`, {
      hint: `there are ${toolNames().join(", ")}`,
    });
  }
  const own = tool.provisionedOnly ? undefined : await findProgram(name);
  if (own) return own;
  const prefix = await ensurePrefix({
    name: `tool-${name}`,
    set: {
      suites: ["bookworm"],
      components: ["main"],
      packages: tool.packageNames,
      assumed: tool.assumed,
    },
    programs: [{ name, path: tool.path, args: tool.args }],
  }, options);
  return `${prefix}/${name}`;
}

/**
 * The environment that a tool from {@link ensureTool} needs beyond its caller's: Python looks for
 * its library where it was installed, not where it was unpacked.
 */
export function toolEnv(path: string): Record<string, string> {
  const prefix = path.slice(0, path.lastIndexOf("/"));
  return prefix.endsWith("/tool-nbdsh") ? { PYTHONHOME: `${prefix}/usr` } : {};
}
