/** fio in the guest: its jobs, its command line, and its output. */

/** One job. */
export interface FioJob {
  readonly name: string;
  readonly options: readonly string[];
}

/** The jobs of `kemari bench disk`, in the order in which they run. */
export const FIO_JOBS: readonly FioJob[] = [
  { name: "4k random write", options: ["--rw=randwrite", "--bs=4k", "--iodepth=16"] },
  {
    name: "4k random write, fsync",
    options: ["--rw=randwrite", "--bs=4k", "--iodepth=1", "--fsync=1"],
  },
  { name: "1M write", options: ["--rw=write", "--bs=1M", "--iodepth=4"] },
  { name: "1M write, fsync", options: ["--rw=write", "--bs=1M", "--iodepth=1", "--fsync=1"] },
  { name: "4k random read", options: ["--rw=randread", "--bs=4k", "--iodepth=16"] },
  { name: "1M read", options: ["--rw=read", "--bs=1M", "--iodepth=4"] },
];

/** The command that runs a job on a device for some seconds. */
export function fioCommand({ options }: FioJob, device: string, seconds: number): string {
  return [
    ...["/opt/fio", "--minimal", `--filename=${device}`, "--direct=1", "--ioengine=libaio"],
    ...["--thread", "--time_based", `--runtime=${seconds}`, "--randseed=7", "--name=job"],
    ...options,
  ].join(" ");
}

/** Fields of terse output, version 3: bandwidth in KiB/s of reads and of writes. */
const READ_BANDWIDTH = 6;
const WRITE_BANDWIDTH = 47;

/**
 * Reads fio's terse output.
 *
 * @returns The job's MB/s; `undefined` if the output has none.
 */
export function parseFio(output: string): number | undefined {
  const fields = output.split("\n").map((line) => line.split(";"))
    .find((found) => found[0] === "3" && found.length > WRITE_BANDWIDTH);
  if (fields === undefined) return undefined;
  return (Number(fields[READ_BANDWIDTH]) + Number(fields[WRITE_BANDWIDTH])) * 1024 / 1e6;
}
