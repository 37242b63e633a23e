/** The guest: a Debian cloud kernel and an initramfs of busybox, drivers and our init. */

import { formatMegabytes } from "../../units.ts";
import { createHash } from "node:crypto";
import { QemuError } from "../../errors.ts";
import { cacheDir, exists, type ProvisionOptions, withLock } from "../provision/cache_dir.ts";
import { ensurePrefix, type PrefixPlan } from "../provision/prefix.ts";
import { type CpioEntry, encodeCpio } from "./cpio.ts";
import { DRIVER_GROUPS, FILESYSTEM_MODULES, initScript } from "./init_script.ts";
import { loadOrder, moduleName, readModinfo } from "./kernel_modules.ts";

/** What QEMU boots itself, without a disk. */
export interface BootImages {
  /** For `-kernel`: a Linux, or a multiboot image. */
  readonly kernel: string;
  /** For `-initrd`. */
  readonly initrd?: string;
  /** For `-append`; more words may follow, such as `kemari.count=1`. */
  readonly append: string;
  /** For `-bios`; QEMU's own if absent. */
  readonly firmware?: string;
}

/** What QEMU needs to boot the guest. */
export interface GuestImages extends BootImages {
  readonly initrd: string;
  readonly kernelVersion: string;
}

/** Raised when the archive's contents change in a way that no hashed input shows. */
const INITRD_FORMAT = 1;

/** Debian's cloud kernel has virtio, vmxnet3 and IDE; the full one also e1000 and AHCI (75 MB). */
export type GuestKernel = "cloud" | "full";

function planOf(kernel: GuestKernel): PrefixPlan {
  return {
    name: kernel === "cloud" ? "guest" : `guest-${kernel}`,
    set: {
      suites: ["bookworm"],
      components: ["main"],
      packages: [
        kernel === "cloud" ? "linux-image-cloud-amd64" : "linux-image-amd64",
        "busybox-static",
      ],
      // The kernel's package wants these to install itself; here it is only unpacked.
      assumed: ["kmod", "linux-base", "initramfs-tools"],
    },
    programs: [],
  };
}

/** Quiet, quick under TCG, and gone at once if it panics. */
const APPEND = "console=ttyS0 loglevel=3 panic=-1 mitigations=off nokaslr no_timer_check " +
  "random.trust_cpu=on cryptomgr.notests";

/** Extra members for the initramfs, such as a benchmark's program and its libraries. */
export interface GuestExtras {
  /** Part of the image's file name. */
  readonly name: string;
  readonly entries: readonly CpioEntry[];
}

/** What kind of guest. */
interface GuestOptions extends ProvisionOptions {
  /** `cloud` if absent. */
  readonly kernel?: GuestKernel;
  readonly extras?: GuestExtras;
}

/**
 * Provides the guest, downloading and building it first if need be.
 *
 * The initramfs is the same for the same kernel, script and extras, and is built once.
 */
export async function ensureGuest(
  options: GuestOptions = {},
): Promise<GuestImages> {
  const { extras } = options;
  const prefix = await ensurePrefix(planOf(options.kernel ?? "cloud"), options);
  const kernelVersion = await findKernel(prefix);
  const script = initScript();
  const hash = createHash("sha256").update(JSON.stringify([
    INITRD_FORMAT,
    kernelVersion,
    script,
    DRIVER_GROUPS,
    FILESYSTEM_MODULES,
    extras?.name,
  ]));
  for (const entry of extras?.entries ?? []) {
    hash.update(entry.path);
    if (entry.kind === "file") hash.update(entry.data);
  }
  const initrd = `${cacheDir()}/initrd-${extras ? `${extras.name}-` : ""}${
    hash.digest("hex").slice(0, 16)
  }.cpio`;
  if (!await exists(initrd)) {
    await withLock(`${cacheDir()}/setup.lock`, options, async () => {
      const image = encodeCpio([
        ...await guestEntries(prefix, kernelVersion, script),
        ...(extras?.entries ?? []),
      ]);
      await Deno.writeFile(`${initrd}.tmp`, image);
      await Deno.rename(`${initrd}.tmp`, initrd);
      options.onProgress?.(`guest: initramfs of ${formatMegabytes(image.length, 1)} built`);
    });
  }
  return {
    kernel: `${prefix}/boot/vmlinuz-${kernelVersion}`,
    initrd,
    append: APPEND,
    kernelVersion,
  };
}

async function findKernel(prefix: string): Promise<string> {
  for await (const entry of Deno.readDir(`${prefix}/boot`)) {
    if (entry.name.startsWith("vmlinuz-")) return entry.name.slice("vmlinuz-".length);
  }
  throw new QemuError("guest", "NoKernel", `no kernel in ${prefix}/boot`, {
    hint: "remove that folder and run the setup again",
  });
}

async function guestEntries(
  prefix: string,
  kernelVersion: string,
  script: string,
): Promise<CpioEntry[]> {
  const text = new TextEncoder();
  const entries: CpioEntry[] = [
    ...["bin", "dev", "lib", "lib/modules"].map((path) => ({ kind: "folder" as const, path })),
    { kind: "device", path: "dev/console", major: 5, minor: 1 },
    { kind: "device", path: "dev/null", major: 1, minor: 3 },
    { kind: "file", path: "init", data: text.encode(script), mode: 0o755 },
    { kind: "file", path: "bin/busybox", data: await readBusybox(prefix), mode: 0o755 },
  ];
  const paths = await findModules(`${prefix}/lib/modules/${kernelVersion}/kernel`);
  const loaded = new Map<string, { data: Uint8Array; depends: readonly string[] }>();
  const dependsOf = (name: string) => {
    const known = loaded.get(name);
    if (known) return known.depends;
    const path = paths.get(name);
    if (!path) return undefined;
    const data = Deno.readFileSync(path);
    const depends = (readModinfo(data).get("depends") ?? "").split(",")
      .filter((word) => word !== "").map((word) => word.replaceAll("-", "_"));
    loaded.set(name, { data, depends });
    return depends;
  };
  const groups = [...DRIVER_GROUPS, { name: "filesystem", modules: FILESYSTEM_MODULES }];
  for (const group of groups) {
    const order = loadOrder(group.modules, dependsOf);
    const list = order.map((name) => `${name}\n`).join("");
    entries.push({
      kind: "file",
      path: `lib/modules/${group.name}.order`,
      data: text.encode(list),
    });
  }
  for (const name of [...loaded.keys()].sort()) {
    entries.push({ kind: "file", path: `lib/modules/${name}.ko`, data: loaded.get(name)!.data });
  }
  return entries;
}

async function readBusybox(prefix: string): Promise<Uint8Array> {
  for (const path of ["bin/busybox", "usr/bin/busybox"]) {
    if (await exists(`${prefix}/${path}`)) return await Deno.readFile(`${prefix}/${path}`);
  }
  throw new QemuError("guest", "NoBusybox", `no busybox in ${prefix}`);
}

/** All modules below `folder`, by the name that `depends=` uses. */
async function findModules(folder: string): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  const visit = async (path: string) => {
    for await (const entry of Deno.readDir(path)) {
      if (entry.isDirectory) await visit(`${path}/${entry.name}`);
      else if (entry.name.endsWith(".ko")) {
        found.set(moduleName(entry.name), `${path}/${entry.name}`);
      }
    }
  };
  await visit(folder);
  return found;
}
