import { getLogger } from "@logtape/logtape";
import { drill, type DrillReport } from "../drill/drill.ts";
import {
  DEVICES,
  type Devices,
  type DiskMode,
  type Fault,
  FAULTS,
  faultsFor,
  type Phase,
  PHASES,
} from "../drill/plan.ts";
import { EXIT, UsageError } from "../errors.ts";
import type { CommandContext } from "./context.ts";
import { formatDrill } from "./drill_text.ts";
import type { DrillOptions } from "./options.ts";

const log = getLogger(["kemari", "drill"]);

export async function run(options: DrillOptions, context: CommandContext): Promise<number> {
  if (options.pingPong !== undefined && options.fault !== "primary") {
    throw new UsageError("--ping-pong is takeovers after the primary's death, and no other fault", {
      hint: "leave --fault away",
    });
  }
  const narrate = (line: string) => {
    if (options.logFormat === "json") log.info("{line}", { line });
    else if (!options.quiet) context.status.print(`drill: ${line}\n`);
  };
  const settings = {
    ...options,
    faults: parseFaults(options.fault, options.diskMode),
    devices: parseDevices(options.devices),
    phases: parsePhases(options.phase),
    seed: options.seed ?? crypto.getRandomValues(new Uint32Array(1))[0],
    fillMiB: Math.min(64, Math.floor(options.memoryMiB / 4)),
    syncIntervalMs: 20,
  };
  const write = (report: DrillReport) =>
    context.writeOut(options.json ? JSON.stringify(report) + "\n" : formatDrill(report));
  // One that is left running for a long time is worth something when it is ended.
  const report = await drill(settings, narrate, context.signal, write);
  write(report);
  return report.held ? EXIT.done : EXIT.bytes;
}

/**
 * Reads `--fault`.
 *
 * @throws {UsageError} if one is not known, or cannot happen to such a disk.
 */
export function parseFaults(text: string, diskMode: DiskMode): readonly Fault[] {
  const possible = faultsFor(diskMode);
  const faults = parseNames("--fault", text, FAULTS, possible);
  const impossible = faults.find((fault) => !possible.includes(fault));
  if (impossible === undefined) return faults;
  throw new UsageError(
    `--fault ${impossible} cannot happen to a shared disk: it is neither copied nor applied`,
    { hint: "use --disk-mode replicated" },
  );
}

/** Reads `--devices`. @throws {UsageError} if a model is not known. */
export function parseDevices(text: string): readonly Devices[] {
  return parseNames("--devices", text, DEVICES, DEVICES);
}

/** Reads `--phase`. @throws {UsageError} if one is not known. */
export function parsePhases(text: string): readonly Phase[] {
  return parseNames("--phase", text, PHASES, PHASES);
}

/** @param all What `all` stands for. */
function parseNames<Name extends string>(
  option: string,
  text: string,
  known: readonly Name[],
  all: readonly Name[],
): readonly Name[] {
  if (text.trim() === "all") return all;
  const names = text.split(",").map((word) => word.trim());
  const isKnown = (name: string): name is Name => (known as readonly string[]).includes(name);
  const strange = names.find((name) => !isKnown(name));
  if (strange !== undefined) {
    throw new UsageError(`${option}: "${strange}" is none of ${known.join(", ")}, all`);
  }
  return [...new Set(names.filter(isKnown))];
}
