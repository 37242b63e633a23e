/**
 * Provisions what the drill, the tests and the benchmarks run: `deno task setup [PART…]`.
 *
 * Parts: `qemu11` `qemu10` `qemu7` `qemu5` `guest` `guest-full` and the tools of `provision/tools.ts`.
 * Without parts: `qemu11 guest`. Progress on stderr; the paths on stdout, one `PART PATH` a line.
 */

import { exitCodeOf, InterruptedError, KemariError, UsageError } from "../errors.ts";
import { ensureGuest } from "./guest/guest.ts";
import type { ProvisionOptions } from "./provision/cache_dir.ts";
import { ensureQemu } from "./provision/qemu.ts";
import { ensureTool, toolNames } from "./provision/tools.ts";

type Provide = (options: ProvisionOptions) => Promise<string>;

const PARTS: Record<string, Provide> = {
  qemu11: async (options) => (await ensureQemu("11.1", options)).program,
  qemu10: async (options) => (await ensureQemu("10.0", options)).program,
  qemu7: async (options) => (await ensureQemu("7.2", options)).program,
  qemu5: async (options) => (await ensureQemu("5.2", options)).program,
  guest: async (options) => (await ensureGuest(options)).initrd,
  "guest-full": async (options) => (await ensureGuest({ ...options, kernel: "full" })).initrd,
  ...Object.fromEntries(
    toolNames().map((name): [string, Provide] => [name, (options) => ensureTool(name, options)]),
  ),
};

/** What is provided if nothing is named: enough for the drill. */
export const DEFAULT_PARTS: readonly string[] = ["qemu11", "guest"];

/**
 * Provides each part in turn.
 *
 * @returns The path that each part is used by.
 * @throws {UsageError} If a part is unknown; nothing is downloaded then.
 */
export async function setup(
  parts: readonly string[],
  options: ProvisionOptions = {},
): Promise<Map<string, string>> {
  for (const part of parts) {
    if (!(part in PARTS)) {
      throw new UsageError(`setup knows no part ${part}`, {
        hint: `name some of ${Object.keys(PARTS).join(", ")}`,
      });
    }
  }
  const paths = new Map<string, string>();
  for (const part of parts) paths.set(part, await PARTS[part](options));
  return paths;
}

async function main(): Promise<void> {
  const abort = new AbortController();
  const interrupt = () => abort.abort(new InterruptedError("interrupted"));
  for (const name of ["SIGINT", "SIGTERM"] as const) Deno.addSignalListener(name, interrupt);
  const onProgress = (line: string) => console.error(`setup: ${line}`);
  try {
    const parts = Deno.args.length > 0 ? Deno.args : DEFAULT_PARTS;
    const paths = await setup(parts, { onProgress, signal: abort.signal });
    for (const [part, path] of paths) console.log(`${part} ${path}`);
  } catch (error) {
    if (!(error instanceof KemariError)) throw error;
    console.error(`setup: ${error.message}`);
    if (error.hint) console.error(`setup: ${error.hint}`);
    Deno.exitCode = exitCodeOf(error);
  } finally {
    for (const name of ["SIGINT", "SIGTERM"] as const) Deno.removeSignalListener(name, interrupt);
  }
}

if (import.meta.main) await main();
