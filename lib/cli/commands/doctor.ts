import { KemariError, QemuError } from "../../errors.ts";
import { defineCommand } from "../command.ts";
import { optionGroup } from "../options/option_group.ts";
import { json } from "../options/output.ts";
import type { QemuFindings } from "../output/diagnosis.ts";

/** The provisioned QEMUs to fall back to, the best one first. */
const CACHED_VERSIONS = ["11.1", "10.0", "7.2", "5.2"];

const subject = optionGroup("What to look at", (command) =>
  command
    .option("--qmp <socket>", "the QEMU behind this monitor: PATH, unix:PATH or HOST:PORT")
    .option("--qemu <path>", "this QEMU"));

export const doctor = defineCommand({
  name: "doctor",
  summary: "tell whether this host, QEMU and guest can be protected, and in which mode",
  groups: [subject, json],
  help: {
    examples: [
      "kemari doctor",
      "kemari doctor --qmp /run/vm/qmp.sock",
      "kemari doctor --qemu /usr/bin/qemu-system-x86_64 --json",
    ],
    notes: [{
      title: "Which QEMU",
      parts: [
        `Without --qmp and --qemu, doctor looks at KEMARI_QEMU, else at qemu-system-x86_64 on
          PATH, else at what deno task setup has fetched. It starts that QEMU for a moment,
          without a guest. The VM behind --qmp is only asked, and runs on undisturbed.`,
      ],
    }],
    exits: {
      done: "it can be protected",
      bytes: "what answers at the socket is not QMP",
      connection: "nothing answers at the QMP socket, or the QEMU does not start",
      qemu: "it cannot be protected, or there is no QEMU; the reasons are printed",
    },
  },
  /** Prints the findings, and ends with an error if nothing here can be protected. */
  async run(_args, options, context) {
    const { examineHost, examineVm, findQemu } = await import("../../host/doctor.ts");
    const { probeQemu } = await import("../../host/vm/probe_qemu.ts");
    const { diagnose } = await import("../output/diagnosis.ts");
    const { formatDoctor } = await import("../output/doctor_text.ts");
    const { signal, status } = context;
    status.set("looking at this host");
    const host = await examineHost();
    const vm = options.qmp === undefined ? undefined : await examineVm(options.qmp);
    signal.throwIfAborted();
    // A running VM has its QEMU; another QEMU is examined only if the user names it.
    const isWanted = vm === undefined || options.qemu !== undefined;
    const found = isWanted ? await findQemu(options.qemu, await cachedQemus()) : undefined;
    let qemu: QemuFindings | undefined;
    if (found !== undefined) {
      status.set(`asking ${found.program}`);
      const withKvm = host.some(({ name, state }) => name === "/dev/kvm" && state === "ok");
      const support = await probeQemu(found.program, withKvm, signal);
      // The mode depends on the accelerator, and which accelerator a VM will have is not known
      // here.
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
  },
});

/** The paths of provisioned QEMUs, if there are any. */
async function cachedQemus(): Promise<string[]> {
  const { cacheDir } = await import("../../lab/provision/cache_dir.ts");
  try {
    return CACHED_VERSIONS.map((version) => `${cacheDir()}/qemu-${version}/qemu-system-x86_64`);
  } catch (error) {
    // No home, no cache: nothing was provisioned.
    if (error instanceof KemariError) return [];
    throw error;
  }
}
