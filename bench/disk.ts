/**
 * `kemari bench disk`: the disk tap against `nbdkit file` and QEMU's own `-drive file=`, with the
 * same fio job in the same guest.
 *
 * One VM has three virtio disks, each a raw image of its own on one file system: QEMU opens the
 * first itself, nbdkit serves the second and kemari the third, both over a Unix socket. The tap
 * only passes data through here: `kemari protect` serves it and waits for a QEMU that never comes.
 * In every round each job runs on all disks, one right after the other, and a ratio compares
 * consecutive runs. When all jobs ran on one disk before the next disk, there was half a minute
 * between the two runs, and the ratio of 4k writes with fsync varied from 0.77 to 1.10 over seven
 * rounds; now it varies from 0.89 to 1.27 over five (median 0.97).
 */
import { TransportError } from "../lib/errors.ts";
import { ensureGuest } from "../lib/lab/guest/guest.ts";
import { guestPrograms } from "../lib/lab/guest/guest_programs.ts";
import { exists } from "../lib/lab/provision/cache_dir.ts";
import { ensureQemu } from "../lib/lab/provision/qemu.ts";
import { ensureTool } from "../lib/lab/provision/tools.ts";
import { startVm, type Vm } from "../lib/lab/vms/vm.ts";
import { endAllVms, leaveSignalsToCaller } from "../lib/lab/vms/vm_cleanup.ts";
import type { BenchExperiment, BenchGrid, BenchSeries } from "../lib/report/bench_result.ts";
import { pairedRatios, ratioGrid } from "../lib/report/bench_statistics.ts";
import type { BenchContext } from "./bench_context.ts";
import { FIO_JOBS, fioCommand, type FioJob, parseFio } from "./fio.ts";
import { kemariProgram } from "../lib/lab/program/kemari_program.ts";
import { atExit, endQuietly, WorkFolder } from "../lib/lab/program/work_folder.ts";
import { delay } from "../lib/host/system/delay.ts";

const DISK_BYTES = 128 * 2 ** 20;
const MEMORY_MIB = 512;
const ROUNDS = 7;
const QUICK_ROUNDS = 2;
const SECONDS = 4;
const QUICK_SECONDS = 2;
/** The goal in every cell, as a share of nbdkit's throughput. */
const TARGET = 0.95;

const ROWS = ["-drive file=", "nbdkit file", "kemari's tap"];

/** @throws {QemuError} QEMU or the guest cannot be had. @throws {TransportError} A server fails. */
export async function benchDisk(context: BenchContext): Promise<BenchExperiment> {
  const { quick, signal } = context;
  leaveSignalsToCaller();
  const forget = atExit(endAllVms);
  const rounds = context.rounds ?? (quick ? QUICK_ROUNDS : ROUNDS);
  const seconds = context.seconds ?? (quick ? QUICK_SECONDS : SECONDS);
  const steps = rounds * FIO_JOBS.length * ROWS.length;
  context.progress("disk", 0, steps, "QEMU, guest and tools");
  const tools = { signal, onProgress: (line: string) => context.say(`disk: ${line}`) };
  const qemu = await ensureQemu("11.1", tools);
  const guest = await ensureGuest({ extras: await guestPrograms(["fio"], tools), ...tools });
  const nbdkit = await ensureTool("nbdkit", tools);
  const { command, about } = kemariProgram();
  const cells: number[][][] = ROWS.map(() => FIO_JOBS.map(() => []));
  const experiment = (): BenchExperiment => ({
    ...result(cells),
    conditions: {
      qemu: qemu.fullVersion,
      accelerator: "TCG",
      guest: `${MEMORY_MIB} MB, Linux ${guest.kernelVersion}`,
      disk: `${DISK_BYTES / 2 ** 20} MiB, virtio-blk`,
      "fio's time": `${seconds} s`,
    },
    notes: [
      `kemari is ${about}`,
      "reads and writes go through the host's page cache on all three; fsync reaches its disk",
    ],
    cannotShow: [
      "a fast guest: under TCG it issues few requests a second, so that servers wait for it",
      "a disk of one's own: the three images share the host's disk with everything else there",
    ],
  });
  using work = new WorkFolder();
  const folder = work.path;
  const images = ["plain", "nbdkit", "kemari"].map((name) => `${folder}/${name}.img`);
  for (const image of images) fillImage(image);
  await using servers = new AsyncDisposableStack();
  const spawn = (words: readonly string[]) => {
    const child = new Deno.Command(words[0], {
      args: words.slice(1),
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    const forgetChild = atExit(() => endQuietly(child));
    servers.defer(async () => {
      endQuietly(child);
      await child.status;
      forgetChild();
    });
  };
  spawn([
    ...[nbdkit, "--foreground", "--unix", `${folder}/nbdkit.sock`],
    ...[await filePlugin(nbdkit), `file=${images[1]}`],
  ]);
  spawn([
    ...[...command, "protect", "--quiet", "--progress", "never", "--qmp", `${folder}/nobody`],
    ...[`unix:${folder}/nobody`, "--disk", `disk0=${images[2]},unix:${folder}/kemari.sock`],
  ]);
  const sockets = ["nbdkit", "kemari"].map((name) => `${folder}/${name}.sock`);
  for (const socket of sockets) await appears(socket, signal);
  await using vm = await startVm({
    name: "disk",
    qemu: qemu.program,
    guest,
    memoryMiB: MEMORY_MIB,
    args: [images[0], ...sockets.map((socket) => `nbd:unix:${socket}`)]
      .flatMap((file) => ["-drive", `file=${file},format=raw,if=virtio`]),
    signal,
  });
  await vm.ready();
  let done = 0;
  for (let round = 0; round < rounds; round++) {
    for (const [column, job] of FIO_JOBS.entries()) {
      for (let turn = 0; turn < ROWS.length; turn++) {
        const row = (turn + round) % ROWS.length;
        context.progress("disk", done++, steps, `${job.name}, ${ROWS[row]}`);
        signal.throwIfAborted();
        cells[row][column].push(await runFio(vm, job, `/dev/vd${"abc"[row]}`, seconds));
      }
    }
    context.keep({ ...experiment(), partial: `${round + 1} of ${rounds} rounds` });
  }
  forget();
  return experiment();
}

function result(cells: readonly (readonly (readonly number[])[])[]) {
  const grid: BenchGrid = {
    name: "throughput",
    unit: "MB/s",
    rows: ROWS,
    columns: FIO_JOBS.map(({ name }) => name),
    cells,
  };
  const series: BenchSeries[] = FIO_JOBS.map(({ name }, column) => ({
    name: `kemari / nbdkit, ${name}`,
    unit: "×",
    samples: pairedRatios(cells[2][column], cells[1][column]),
    target: { kind: "at-least", value: TARGET },
  }));
  return {
    name: "disk",
    about: "One fio job on three disks of one guest: QEMU's own file, nbdkit's, kemari's",
    series,
    grids: [grid, ratioGrid(grid, "against -drive file=", ROWS[0])],
  };
}

/** Makes an image and writes it once, so that no run has to allocate blocks. */
function fillImage(path: string): void {
  const part = crypto.getRandomValues(new Uint8Array(65536));
  using file = Deno.openSync(path, { write: true, createNew: true });
  for (let at = 0; at < DISK_BYTES; at += part.length) file.writeSync(part);
  file.syncDataSync();
}

async function runFio(vm: Vm, job: FioJob, device: string, seconds: number): Promise<number> {
  const timeoutMs = (seconds + 120) * 1000;
  const { code, output } = await vm.run(fioCommand(job, device, seconds), { timeoutMs });
  const speed = code === 0 ? parseFio(output) : undefined;
  if (speed !== undefined) return speed;
  throw new TransportError("fio", "read", `it failed in the guest (${code}): ${output.trim()}`);
}

/** nbdkit looks for plugins where it would be installed, not where it was unpacked. */
async function filePlugin(nbdkit: string): Promise<string> {
  const prefix = nbdkit.slice(0, nbdkit.lastIndexOf("/"));
  const path = `${prefix}/usr/lib/x86_64-linux-gnu/nbdkit/plugins/nbdkit-file-plugin.so`;
  return await exists(path) ? path : "file";
}

async function appears(path: string, signal: AbortSignal): Promise<void> {
  for (let attempt = 0; attempt < 500; attempt++) {
    signal.throwIfAborted();
    if (await exists(path)) return;
    await delay(20);
  }
  throw new TransportError(path, "listen", "nobody listens there after 10 s");
}
