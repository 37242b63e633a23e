/**
 * Whether and how a running QEMU can be protected: knowledge about QEMU's versions, applied to a
 * QEMU's answers.
 *
 * @see QEMU migration/colo.c, migration/options.c; the table of measured versions in docs/QEMU.md
 */
import { adviceOnBlocker } from "./qemu_texts.ts";
import { QemuError } from "../errors.ts";
import type { JsonObject, QmpCommand } from "./codec.ts";
import { decodeMigrationStatus, type MigrationStatus } from "./migration_status.ts";
import { type AtStart, atStart } from "./run_state.ts";

/**
 * How a VM can be protected: by QEMU's endless migration, or by one whole migration after another.
 */
export type ProtectionMode = "colo" | "snapshot";

/** QEMU's version, as it reports it. */
interface QemuVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
  /** With the distribution's package, if any. */
  readonly text: string;
}

/** A QEMU's abilities. Has JSON values only. */
export interface MigrationSupport {
  readonly version: QemuVersion;
  /** `kvm`, `tcg`, or what else runs the vCPUs. */
  readonly accelerator: string;
  /** The run state by `query-status`, such as `running`. */
  readonly runState: string;
  /** Every migration capability that this QEMU knows, and whether it is on. */
  readonly capabilities: Readonly<Record<string, boolean>>;
  /** Whether QEMU has the capability `return-path`. */
  readonly returnPath: boolean;
  /** Every migration parameter that is a number. */
  readonly parameters: Readonly<Record<string, number>>;
  /** The machine's property `suppress-vmdesc`; undefined if it has none. */
  readonly suppressVmdesc?: boolean;
  readonly colo: boolean;
  readonly coloReason: string;
  /**
   * Whether it can be a standby, with its RAM in files and loading device state alone: `recv
   * --standby`.
   */
  readonly warmStandby: boolean;
  readonly warmStandbyReason: string;
  readonly mode: ProtectionMode;
  /** Why this mode. */
  readonly reason: string;
  /** Why the VM cannot be protected as it is; empty if it can. Whole sentences. */
  readonly blockers: readonly string[];
  /**
   * Why there is no VM yet that could be protected; undefined if there is one. A whole sentence.
   */
  readonly arrives?: string;
  /** Why the VM stands still and has to be waited for; undefined if it runs. A whole sentence. */
  readonly standsStill?: string;
  /** Warnings for the operator. Whole sentences. */
  readonly warnings: readonly string[];
}

/** The questions for the judgement. A QEMU that does not know one of them is no error. */
export const SUPPORT_QUERIES = {
  version: { execute: "query-version" },
  capabilities: { execute: "query-migrate-capabilities" },
  parameters: { execute: "query-migrate-parameters" },
  kvm: { execute: "query-kvm" },
  accelerators: { execute: "query-accelerators" },
  migration: { execute: "query-migrate" },
  status: { execute: "query-status" },
  block: { execute: "query-block" },
  memdevs: { execute: "query-memdev" },
  /**
   * The device with the machine's ACPI registers, on pc and q35; {@link sleepQueries} asks more
   * about it.
   */
  acpiDevice: { execute: "qom-get", arguments: { path: "/machine", property: "acpi-device" } },
  suppressVmdesc: {
    execute: "qom-get",
    arguments: { path: "/machine", property: "suppress-vmdesc" },
  },
  /**
   * No vCPU has this number. Without a dirty ring QEMU has nothing to cancel and ignores the
   * number; with a dirty ring it refuses the number. The command changes nothing either way; before
   * 7.1 it does not exist.
   */
  dirtyRing: {
    execute: "cancel-vcpu-dirty-limit",
    arguments: { "cpu-index": 2 ** 31 - 1 },
  },
} as const satisfies Record<string, QmpCommand>;

/** Further questions about the device that {@link SUPPORT_QUERIES} has found, if any. */
export function sleepQueries(acpiDevice: unknown): Readonly<Record<string, QmpCommand>> {
  if (typeof acpiDevice !== "string" || acpiDevice === "") return {};
  const get = (property: string) => ({
    execute: "qom-get",
    arguments: { path: acpiDevice, property },
  });
  return { acpiType: get("type"), disableS3: get("disable_s3") };
}

type SupportQuery = keyof typeof SUPPORT_QUERIES | "acpiType" | "disableS3";

/** The answers by the names of the questions; missing if QEMU refused. */
export type SupportReplies = { readonly [name in SupportQuery]?: unknown };

/** QMP's error class by the name of the question that QEMU refused. */
type SupportRefusals = { readonly [name in SupportQuery]?: string };

/**
 * Judges what a QEMU can do.
 *
 * @throws {QemuError} If QEMU did not even tell its version.
 */
export function probeCapabilities(
  replies: SupportReplies,
  refusals: SupportRefusals = {},
): MigrationSupport {
  const version = decodeVersion(replies.version);
  const accelerator = acceleratorOf(replies);
  const capabilities = decodeCapabilities(replies.capabilities);
  // The ring came with 6.1, the question with 7.1: if it cannot be known, the VM is not put at
  // risk.
  const since61 = version.major > 6 || version.major === 6 && version.minor >= 1;
  const dirtyRing = refusals.dirtyRing === "GenericError" ||
    refusals.dirtyRing !== undefined && since61;
  const { colo, coloReason } = judgeColo(version, accelerator, capabilities, dirtyRing);
  const runState = textAt(replies.status, "status") ?? "unknown";
  const start = found(runState, decodeMigrationStatus(replies.migration));
  return {
    version,
    accelerator,
    runState,
    capabilities,
    returnPath: "return-path" in capabilities,
    parameters: decodeParameters(replies.parameters),
    ...(typeof replies.suppressVmdesc === "boolean"
      ? { suppressVmdesc: replies.suppressVmdesc }
      : {}),
    colo,
    coloReason,
    ...judgeStandby(version, capabilities),
    mode: colo ? "colo" : "snapshot",
    reason: colo
      ? `continuous checkpoints (COLO): ${coloReason}`
      : `one whole migration after another: ${coloReason}`,
    ...(start.kind === "wait" ? { standsStill: start.reason } : {}),
    ...(start.kind === "arrives" ? { arrives: start.reason } : {}),
    blockers: findBlockers(replies, runState, accelerator, capabilities),
    warnings: findWarnings(replies),
  };
}

/** The refusal, if there is a reason for one. */
export function refusalOf(support: MigrationSupport): QemuError | undefined {
  if (support.blockers.length === 0) return undefined;
  return new QemuError("migrate", "Blocked", support.blockers.join(" "), {
    hint: "`kemari doctor` checks it again once that is changed",
  });
}

function judgeStandby(
  version: QemuVersion,
  capabilities: Readonly<Record<string, boolean>>,
): { readonly warmStandby: boolean; readonly warmStandbyReason: string } {
  const name = `QEMU ${version.major}.${version.minor}`;
  if (!("x-ignore-shared" in capabilities)) {
    return {
      warmStandby: false,
      warmStandbyReason: `${name} has no x-ignore-shared: recv --standby starts it cold`,
    };
  }
  return {
    warmStandby: true,
    warmStandbyReason: `${name} loads device state alone where its RAM is a shared file`,
  };
}

function judgeColo(
  version: QemuVersion,
  accelerator: string,
  capabilities: Readonly<Record<string, boolean>>,
  dirtyRing: boolean,
): { readonly colo: boolean; readonly coloReason: string } {
  const name = `QEMU ${version.major}.${version.minor}`;
  if (!("x-colo" in capabilities)) {
    return { colo: false, coloReason: `this ${name} was built without COLO (no x-colo)` };
  }
  if (version.major >= 11) {
    if (!("return-path" in capabilities)) {
      return { colo: false, coloReason: `${name} wants a return path for COLO and offers none` };
    }
    const isMeasured = version.major === 11 && version.minor === 1 &&
      (accelerator === "tcg" || accelerator === "kvm");
    return { colo: true, coloReason: keepsThemUp(name, accelerator, isMeasured) };
  }
  if (accelerator !== "kvm") {
    const knows = accelerator === "tcg" ? "hangs" : "is not known to work";
    return { colo: false, coloReason: `${name} ${knows} in COLO under ${accelerator}` };
  }
  if (version.major < 5 || version.major === 5 && version.minor < 2) {
    return { colo: false, coloReason: `${name} is older than any whose COLO was tried (5.2)` };
  }
  if (dirtyRing) {
    return {
      colo: false,
      coloReason: `${name} aborts in COLO where KVM has a dirty ring, and has one or cannot say: ` +
        "start it without dirty-ring-size, on 7.1 or later",
    };
  }
  const isMeasured = MEASURED_UNDER_KVM.has(`${version.major}.${version.minor}`);
  return { colo: true, coloReason: keepsThemUp(name, accelerator, isMeasured) };
}

/** The versions before 11 whose COLO was tested for long under KVM. */
const MEASURED_UNDER_KVM: ReadonlySet<string> = new Set(["5.2", "7.2", "10.0"]);

function keepsThemUp(name: string, accelerator: string, isMeasured: boolean): string {
  return isMeasured
    ? `${name} keeps them up under ${accelerator} (measured)`
    : `${name} is expected to keep them up under ${accelerator} (not measured)`;
}

function findBlockers(
  replies: SupportReplies,
  runState: string,
  accelerator: string,
  capabilities: Readonly<Record<string, boolean>>,
): string[] {
  const blockers: string[] = [];
  const migration = decodeMigrationStatus(replies.migration);
  const start = found(runState, migration);
  for (const reason of migration.blockedReasons) blockers.push(explainBlock(reason));
  if (migration.status === "cancelling") {
    blockers.push(
      "A migration was cancelled and has not ended (cancelling): if it was a COLO's, QEMU never " +
        "ends it, and this VM cannot be protected or migrated until its QEMU is started anew.",
    );
  } else if (isUnderWay(migration) && start.kind !== "arrives") {
    // QEMU reports an incoming migration in the same way.
    blockers.push(
      `A migration is under way already (${migration.status}): wait for it, or cancel it.`,
    );
  }
  if (start.kind !== "protect" && start.kind !== "wait") blockers.push(start.reason);
  if (accelerator === "tcg") blockers.push(...findForgottenRam(replies));
  if (textAt(replies.parameters, "tls-creds")) {
    blockers.push(
      "The migration parameter tls-creds is set, and kemari's end of the socket has no TLS: " +
        "clear it.",
    );
  }
  if (Object.keys(capabilities).length === 0) {
    blockers.push("This QEMU reports no migration capabilities: it cannot migrate.");
  }
  return blockers;
}

/**
 * What a VM's run state means together with a migration. In postcopy a VM runs at the destination
 * while a part of its memory is still at the source, where the VM stands still (finish-migrate,
 * postmigrate).
 *
 * @see QEMU migration/migration.c, fill_destination_migration_info()
 */
function found(runState: string, { status }: MigrationStatus): AtStart {
  const start = atStart(runState);
  const isHere = start.kind === "protect" || start.kind === "wait";
  if (!isHere || !status.startsWith("postcopy-")) return start;
  return {
    kind: "arrives",
    reason: `A part of the VM's memory has not arrived yet (${status}).`,
  };
}

function isUnderWay({ phase }: MigrationStatus): boolean {
  return phase === "running" || phase === "colo";
}

/** QEMU's reason, and what to do about it, if that is known. */
function explainBlock(reason: string): string {
  const text = reason.replace(/\.$/, "");
  const advice = adviceOnBlocker(reason);
  return `Migration is blocked (${text})${advice === undefined ? "" : `: ${advice}`}.`;
}

/** The bytes that a word of QEMU's dirty bitmap covers. */
const DIRTY_WORD_BYTES = 64 * 4096;

/**
 * RAM in which QEMU misses writes. After QEMU has taken a block's dirty bits, tcg must notice the
 * next write again; if a block consists of whole words of the bitmap, QEMU requests that for the
 * same range of the first block instead (measured: pages of a second back end were missing from
 * checkpoints, and the guest did not survive; cause in migration/ram.c,
 * physical_memory_sync_dirty_bitmap()). Other lengths are handled correctly.
 */
function findForgottenRam(replies: SupportReplies): string[] {
  const all = Array.isArray(replies.memdevs) ? replies.memdevs : [];
  if (all.length < 2) return [];
  const forgotten = all.filter((memdev) => {
    const size = valueAt(memdev, "size");
    return typeof size !== "number" || size % DIRTY_WORD_BYTES === 0;
  }).map((memdev) => textAt(memdev, "id") ?? "a memory back end");
  if (forgotten.length === 0) return [];
  return [
    `Under tcg, QEMU loses sight of writes to RAM in several back ends (${
      forgotten.join(", ")
    }): ` +
    "use one back end, or kvm, or sizes that are no multiple of 256 KiB.",
  ];
}

function findWarnings(replies: SupportReplies): string[] {
  return [...findLocalWrites(replies), ...findSleep(replies)];
}

/**
 * The warning for a machine whose guest can suspend to RAM. QEMU cannot return to `suspended` with
 * a VM that a migration has stopped: it aborts (measured, 10.0 and 11.1), or wakes the guest (7.2).
 */
function findSleep({ acpiType, disableS3 }: SupportReplies): string[] {
  const isOffered = disableS3 === 0 || disableS3 === false;
  if (!isOffered || typeof acpiType !== "string") return [];
  return [
    "The machine offers its guest to suspend to RAM (S3): while it sleeps it is unprotected, and " +
    "one that falls asleep in the very moment of a checkpoint is lost to this QEMU. Turn S3 off, " +
    "on both sides, " +
    `by QEMU's -global ${acpiType}.disable_s3=1 (libvirt: <pm><suspend-to-mem ` +
    `enabled='no'/></pm>).`,
  ];
}

function findLocalWrites(replies: SupportReplies): string[] {
  const drives = Array.isArray(replies.block) ? replies.block : [];
  const local = drives.filter((drive) => {
    const inserted = objectAt(drive, "inserted");
    return inserted?.ro === false && !/^nbd/.test(textAt(inserted, "file") ?? "");
  }).map((drive) => textAt(drive, "device") || textAt(drive, "qdev") || "a drive");
  if (local.length === 0) return [];
  return [
    `Writes to ${local.join(", ")} do not pass through kemari: ` +
    "the secondary must reach the same storage, or it resumes with a disk of its own.",
  ];
}

function acceleratorOf(replies: SupportReplies): string {
  const enabled = textAt(replies.accelerators, "enabled");
  if (enabled !== undefined) return enabled;
  return valueAt(replies.kvm, "enabled") === true ? "kvm" : "tcg";
}

function decodeVersion(reply: unknown): QemuVersion {
  const qemu = objectAt(reply, "qemu");
  const part = (name: string) => {
    const value = valueAt(qemu, name);
    return typeof value === "number" ? value : undefined;
  };
  const [major, minor, micro] = [part("major"), part("minor"), part("micro")];
  if (major === undefined || minor === undefined) {
    throw new QemuError("query-version", "?", "the answer names no version");
  }
  const vendor = textAt(reply, "package");
  const number = `${major}.${minor}.${micro ?? 0}`;
  return { major, minor, micro: micro ?? 0, text: vendor ? `${number} (${vendor})` : number };
}

function decodeParameters(reply: unknown): Record<string, number> {
  const all = typeof reply === "object" && reply !== null ? Object.entries(reply) : [];
  return Object.fromEntries(
    all.filter((each): each is [string, number] => typeof each[1] === "number"),
  );
}

function decodeCapabilities(reply: unknown): Record<string, boolean> {
  const capabilities: Record<string, boolean> = {};
  for (const item of Array.isArray(reply) ? reply : []) {
    const name = textAt(item, "capability");
    if (name !== undefined) capabilities[name] = valueAt(item, "state") === true;
  }
  return capabilities;
}

function valueAt(value: unknown, key: string): unknown {
  return typeof value === "object" && value !== null ? (value as JsonObject)[key] : undefined;
}

function objectAt(value: unknown, key: string): JsonObject | undefined {
  const found = valueAt(value, key);
  return typeof found === "object" && found !== null ? found as JsonObject : undefined;
}

function textAt(value: unknown, key: string): string | undefined {
  const found = valueAt(value, key);
  return typeof found === "string" ? found : undefined;
}
