/** fio in the guest: its jobs, its command line, and what it says. */

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

/** One command that runs all of them on a device, each for so long. */
export function fioCommand(device: string, seconds: number): string {
  return [
    ...["/opt/fio", "--minimal", `--filename=${device}`, "--direct=1", "--ioengine=libaio"],
    ...["--thread", "--time_based", `--runtime=${seconds}`, "--randseed=7"],
    ...FIO_JOBS.flatMap(({ options }, i) => [`--name=job${i}`, "--stonewall", ...options]),
  ].join(" ");
}

/** Fields of terse output, version 3: bandwidth in KiB/s of reads and of writes. */
const READ_BANDWIDTH = 6;
const WRITE_BANDWIDTH = 47;

/**
 * Reads fio's terse output.
 *
 * @returns MB/s of each job, in their order; `undefined` if a job is missing.
 */
export function parseFio(output: string): number[] | undefined {
  const jobs = output.split("\n").map((line) => line.split(";"))
    .filter((fields) => fields[0] === "3" && fields.length > WRITE_BANDWIDTH);
  if (jobs.length !== FIO_JOBS.length) return undefined;
  return jobs.map((fields) =>
    (Number(fields[READ_BANDWIDTH]) + Number(fields[WRITE_BANDWIDTH])) * 1024 / 1e6
  );
}
