/** The conclusions of `kemari doctor`; `--json` prints this document as it is. */
import type { FoundQemu, HostCheck, VmFindings } from "../../host/doctor.ts";
import { sayOutside } from "../../qmp/outside_output.ts";
import type { MigrationSupport, ProtectionMode } from "../../qmp/migration_support.ts";

export interface QemuFindings extends FoundQemu {
  /** The mode with KVM, if there is KVM. */
  readonly support: MigrationSupport;
  /** The mode of a VM without KVM. */
  readonly underTcg: Pick<MigrationSupport, "mode" | "reason">;
}

/** The whole report. Holds JSON values only. */
export interface Diagnosis {
  readonly host: readonly HostCheck[];
  readonly qemu: QemuFindings | null;
  readonly vm: VmFindings | null;
  readonly protectable: boolean;
  /** `null` if it cannot be protected. */
  readonly mode: ProtectionMode | null;
  /** Why this mode, or why not. */
  readonly reason: string;
  /** What to do next, sentences or command lines; the most important first. */
  readonly todo: readonly string[];
}

/**
 * Draws the conclusions. A running VM decides; without one, the QEMU does.
 *
 * @param qemu Absent if none was looked for, or none was found.
 * @param vm Absent if none was named.
 */
export function diagnose(
  host: readonly HostCheck[],
  qemu: QemuFindings | undefined,
  vm: VmFindings | undefined,
): Diagnosis {
  const found = { host, qemu: qemu ?? null, vm: vm ?? null };
  const support = vm?.support ?? qemu?.support;
  const refused = (reason: string, todo: readonly string[]): Diagnosis => {
    return { ...found, protectable: false, mode: null, reason, todo };
  };
  const unfit = host.filter(({ state }) => state === "fault");
  if (unfit.length > 0) {
    return refused(
      `this host cannot run kemari: ${unfit.map((check) => check.found).join("; ")}`,
      ["use a Linux host with glibc"],
    );
  }
  if (support === undefined) {
    return refused("no QEMU was found on this host", [
      "install qemu-system-x86, fetch one with `deno task setup`, or name one with --qemu PATH",
    ]);
  }
  if (support.blockers.length > 0) {
    return refused(support.blockers.join(" "), [
      "change that, then run kemari doctor again",
      ...support.warnings,
    ]);
  }
  return {
    ...found,
    protectable: true,
    mode: support.mode,
    reason: support.reason,
    todo: [
      ...nextSteps(support, qemu, vm),
      ...support.warnings,
      ...(vm?.timer.warning === undefined ? [] : [vm.timer.warning]),
      ...(vm === undefined ? [] : sayOutside(vm.outside)),
    ],
  };
}

function nextSteps(
  support: MigrationSupport,
  qemu: QemuFindings | undefined,
  vm: VmFindings | undefined,
): string[] {
  const steps = vm === undefined
    ? ["start the VM with -qmp unix:PATH,server=on,wait=off, then kemari doctor --qmp PATH"]
    : [`kemari protect TARGET --qmp ${vm.socket}`];
  if (vm === undefined && qemu !== undefined && qemu.underTcg.mode !== support.mode) {
    steps.push(`start it with -accel kvm: under tcg there is only ${qemu.underTcg.reason}`);
  }
  if (support.standsStill !== undefined) steps.push(support.standsStill);
  if (support.mode === "snapshot") {
    steps.push("for continuous checkpoints (COLO), run the VM under kvm, or on QEMU 11.1 or later");
  }
  return steps;
}
