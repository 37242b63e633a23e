/** Collects evidence of a run that went wrong, for finding the cause. */
import { QmpClient } from "../host/vm/qmp_client.ts";
import { KemariError } from "../errors.ts";
import type { RunningVm } from "../lab/vms/standby_guest.ts";

/** The questions to QEMU's monitor. */
const QUESTIONS = ["status", "registers -a", "cpus", "block", "blockstats", "network", "migrate"]
  .map((about) => `info ${about}`);
const ANSWER_MS = 5000;

/**
 * Writes a VM's console output, the state of QEMU's threads, the monitor's answers, and the VM's
 * RAM, which has the kernel's log: `FOLDER/NAME.console`, `.threads`, `.monitor` and `.ram`. For a
 * QEMU that does not answer, only the first two are written.
 */
export async function keepEvidence(vm: RunningVm, name: string, folder: string, memoryMiB: number) {
  const path = (suffix: string) => `${folder}/${name}.${suffix}`;
  const lines = vm.console.lines.map(({ text, atMs }) => `${new Date(atMs).toISOString()} ${text}`);
  await Deno.writeTextFile(path("console"), lines.join("\n") + "\n");
  await Deno.writeTextFile(path("threads"), threadsOf(vm.pid));
  let client: QmpClient | undefined;
  try {
    client = await QmpClient.connect(vm.spareQmpPath);
    let text = "";
    for (const question of QUESTIONS) {
      const args = { "command-line": question };
      const answer = await client.execute("human-monitor-command", args, { timeoutMs: ANSWER_MS });
      text += `${question}\n${answer}\n`;
    }
    await Deno.writeTextFile(path("monitor"), text);
    const range = { val: 0, size: memoryMiB * 2 ** 20, filename: path("ram") };
    await client.execute("pmemsave", range, { timeoutMs: ANSWER_MS });
  } catch (error) {
    // A dead QEMU does not answer.
    if (!(error instanceof KemariError)) throw error;
    await Deno.writeTextFile(path("monitor"), `${error.message}\n`, { append: true });
  } finally {
    await client?.close().catch(() => {});
  }
}

/** Name, state and wait channel of each thread of a process. */
function threadsOf(pid: number): string {
  const about = (path: string) => {
    try {
      return Deno.readTextFileSync(path).trim();
    } catch {
      return "?";
    }
  };
  try {
    return [...Deno.readDirSync(`/proc/${pid}/task`)].map(({ name }) => {
      const task = `/proc/${pid}/task/${name}`;
      const [, state] = /^State:\s*(\S)/m.exec(about(`${task}/status`)) ?? [];
      return `${name} ${about(`${task}/comm`)} ${state} ${about(`${task}/wchan`)} ${
        about(`${task}/syscall`)
      }\n`;
    }).join("");
  } catch {
    return "it has ended\n";
  }
}
