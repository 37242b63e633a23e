import { cacheDir } from "../lab/provision/cache_dir.ts";
import { KemariError, QemuError } from "../errors.ts";
import { examineHost, examineVm, findQemu } from "../host/doctor.ts";
import { probeQemu } from "../host/vm/qemu_probe.ts";
import type { CommandContext } from "./context.ts";
import { formatDoctor } from "./doctor_text.ts";
import { diagnose, type QemuFindings } from "./diagnosis.ts";
import type { DoctorOptions } from "./options.ts";

/** Which provisioned QEMUs to fall back to; the best one first. */
const CACHED_VERSIONS = ["11.1", "10.0", "7.2", "5.2"];

/** Prints what was found, and ends with an error if nothing here can be protected. */
export async function run(options: DoctorOptions, context: CommandContext): Promise<void> {
  const { signal, status } = context;
  status.set("looking at this host");
  const host = await examineHost();
  const vm = options.qmp === undefined ? undefined : await examineVm(options.qmp);
  signal.throwIfAborted();
  // A VM that runs has its QEMU; another one is looked at only if the user names it.
  const isWanted = vm === undefined || options.qemu !== undefined;
  const found = isWanted ? await findQemu(options.qemu, cachedQemus()) : undefined;
  let qemu: QemuFindings | undefined;
  if (found !== undefined) {
    status.set(`asking ${found.program}`);
    const withKvm = host.some(({ name, state }) => name === "/dev/kvm" && state === "ok");
    const support = await probeQemu(found.program, withKvm, signal);
    // What the accelerator decides is told for both: which one a VM will have is not known here.
    const emulating = support.accelerator === "tcg"
      ? support
      : await probeQemu(found.program, false, signal);
    const { mode, reason } = emulating;
    qemu = { ...found, support, underTcg: { mode, reason } };
  }
  const diagnosis = diagnose(host, qemu, vm);
  context.writeOut(
    options.json ? JSON.stringify(diagnosis, null, 2) + "\n" : formatDoctor(diagnosis),
  );
  if (diagnosis.protectable) return;
  throw new QemuError("doctor", "NotProtectable", diagnosis.reason, { hint: diagnosis.todo[0] });
}

/** Where provisioned QEMUs lie, if they do. */
function cachedQemus(): string[] {
  try {
    return CACHED_VERSIONS.map((version) => `${cacheDir()}/qemu-${version}/qemu-system-x86_64`);
  } catch (error) {
    // No home, no cache: nothing was provisioned.
    if (error instanceof KemariError) return [];
    throw error;
  }
}
