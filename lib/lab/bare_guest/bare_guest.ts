/** The bare guest: our own program on a VM's processor, without a BIOS and an operating system. */

import { createHash } from "node:crypto";
import { QemuError } from "../../errors.ts";
import type { BootImages } from "../guest/guest.ts";
import { runTool } from "../provision/apt.ts";
import { cacheDir, exists, type ProvisionOptions, withLock } from "../provision/cache_dir.ts";
import { ensureTool } from "../provision/tools.ts";
import FIRMWARE from "./firmware.asm" with { type: "text" };
import GUEST from "./guest.asm" with { type: "text" };

/** What QEMU needs to boot the bare guest. */
interface BareGuestImages extends BootImages {
  /** Boots in milliseconds; without it QEMU's own firmware boots the same image. */
  readonly firmware: string;
}

/**
 * Provides the bare guest, assembling it first if need be.
 *
 * An image is the same for the same source, and is made once.
 *
 * @throws {QemuError} with the assembler's words, if it refuses the source.
 */
export async function ensureBareGuest(options: ProvisionOptions = {}): Promise<BareGuestImages> {
  return {
    kernel: await ensureImage("bare-guest", GUEST, options),
    firmware: await ensureImage("bare-firmware", FIRMWARE, options),
    // The guest's settings stand behind it, QEMU's name for the image before it.
    append: "--",
  };
}

async function ensureImage(
  name: string,
  source: string,
  options: ProvisionOptions,
): Promise<string> {
  const hash = createHash("sha256").update(source).digest("hex").slice(0, 16);
  const path = `${cacheDir()}/${name}-${hash}.bin`;
  if (await exists(path)) return path;
  const nasm = await ensureTool("nasm", options);
  await withLock(`${cacheDir()}/setup.lock`, options, async () => {
    if (await exists(path)) return;
    const text = `${path}.asm.tmp`;
    const image = `${path}.tmp`;
    await Deno.writeTextFile(text, source);
    const { code, stderr } = await runTool(nasm, ["-f", "bin", "-Werror", "-o", image, text]);
    await Deno.remove(text);
    if (code !== 0) throw new QemuError("nasm", "GenericError", `${name}: ${stderr.trim()}`);
    await Deno.rename(image, path);
  });
  return path;
}
