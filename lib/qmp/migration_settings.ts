/**
 * QEMU's settings before a protection changes them, so that any surviving process can restore them:
 * the operator's next migration is to find everything as it was.
 *
 * @see QEMU qapi/migration.json; hw/core/machine.c for `suppress-vmdesc`
 */
import { WireError } from "../errors.ts";
import type { QmpCommand } from "./codec.ts";
import { CHANGED_CAPABILITIES, CHANGED_PARAMETERS } from "./migration.ts";
import type { MigrationSupport } from "./migration_support.ts";

/** The settings as they were, without those that this QEMU does not have. Has JSON values only. */
interface MigrationSettings {
  readonly capabilities: Readonly<Record<string, boolean>>;
  readonly parameters: Readonly<Record<string, number>>;
  /** The machine's property `suppress-vmdesc`. */
  readonly suppressVmdesc?: boolean;
}

/** The present values of the settings that a protection of this QEMU will change. */
export function settingsOf(support: MigrationSupport): MigrationSettings {
  const pick = <Value>(from: Readonly<Record<string, Value>>, names: readonly string[]) =>
    Object.fromEntries(names.filter((name) => name in from).map((name) => [name, from[name]]));
  return {
    capabilities: pick(support.capabilities, CHANGED_CAPABILITIES),
    parameters: pick(support.parameters, CHANGED_PARAMETERS),
    ...(support.suppressVmdesc === undefined ? {} : { suppressVmdesc: support.suppressVmdesc }),
  };
}

/**
 * The commands that restore them. They are independent: if one is refused, the others still work.
 */
export function restoreSettings(settings: MigrationSettings): QmpCommand[] {
  const capabilities = Object.entries(settings.capabilities)
    .map(([capability, state]) => ({ capability, state }));
  const commands: QmpCommand[] = [];
  if (capabilities.length > 0) {
    commands.push({ execute: "migrate-set-capabilities", arguments: { capabilities } });
  }
  if (Object.keys(settings.parameters).length > 0) {
    commands.push({ execute: "migrate-set-parameters", arguments: { ...settings.parameters } });
  }
  if (settings.suppressVmdesc !== undefined) {
    commands.push(setSuppressVmdesc(settings.suppressVmdesc));
  }
  return commands;
}

/**
 * Has QEMU leave the description of device state out, from the next migration on.
 *
 * QEMU 11.1 makes the description for every COLO checkpoint, sends none of them and keeps them all:
 * 97 KB each for a default `pc`, and half of the time that the guest stands still (measured). Other
 * versions cannot be asked whether they do the same; if not, leaving it out costs nothing.
 */
export function setSuppressVmdesc(value: boolean): QmpCommand {
  return {
    execute: "qom-set",
    arguments: { path: "/machine", property: "suppress-vmdesc", value },
  };
}

/** Encodes settings as text, for {@link decodeSettings}. */
export function encodeSettings(settings: MigrationSettings): string {
  return JSON.stringify(settings) + "\n";
}

/** @throws {WireError} `bad-value` if the text is not from {@link encodeSettings}. */
export function decodeSettings(text: string): MigrationSettings {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw damaged(cause);
  }
  const { capabilities, parameters, suppressVmdesc } = recordOf(value);
  const states = Object.entries(recordOf(capabilities)).map(([name, state]) => {
    if (typeof state !== "boolean") throw damaged();
    return [name, state] as const;
  });
  const numbers = Object.entries(recordOf(parameters)).map(([name, number]) => {
    if (typeof number !== "number") throw damaged();
    return [name, number] as const;
  });
  if (suppressVmdesc !== undefined && typeof suppressVmdesc !== "boolean") throw damaged();
  return {
    capabilities: Object.fromEntries(states),
    parameters: Object.fromEntries(numbers),
    ...(suppressVmdesc === undefined ? {} : { suppressVmdesc }),
  };
}

function recordOf(value: unknown): Record<string, unknown> {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  throw damaged();
}

function damaged(cause?: unknown): WireError {
  return new WireError("qmp", 0, "bad-value", "the note of QEMU's settings is damaged", { cause });
}
