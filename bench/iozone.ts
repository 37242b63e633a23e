/**
 * `kemari bench iozone`: file I/O in a guest, unprotected and protected, with iozone itself; the
 * first chart of 2010.
 *
 * A round boots a guest for each way of keeping it, in turn, and runs iozone over every link and
 * with every record size; a ratio compares values of the same round.
 *
 * The guest's clock stands still together with the guest, so iozone alone would not notice a single
 * pause. Its rates are therefore multiplied with the share of the time that the guest ran, by
 * QEMU's STOP and RESUME, while the two operations of one iozone call were measured.
 */
import type { BenchExperiment, BenchGrid } from "../lib/report/bench_result.ts";
import { ratioGrid } from "../lib/report/bench_statistics.ts";
import type { BenchContext, LinkRate } from "./bench_context.ts";
import { GUEST_LIMITS, GuestLab } from "./guest_lab.ts";
import { GuestRun } from "./guest_run.ts";
import {
  type GuestSetup,
  KEMARI_2010,
  KEMARI_DEFAULT,
  pairNotes,
  PLAIN,
  QEMU_PAIR,
  QEMU_PAIR_AS_IT_COMES,
  SYNC_INTERVAL_MS,
  UNPROTECTED,
} from "./guest_setups.ts";
import {
  decodeIozone,
  IOZONE_NOTE,
  IOZONE_OPERATIONS,
  IOZONE_PARTS,
  iozoneCommand,
} from "./iozone_program.ts";

const SETUPS = [
  UNPROTECTED,
  PLAIN,
  KEMARI_2010,
  KEMARI_DEFAULT,
  QEMU_PAIR,
  QEMU_PAIR_AS_IT_COMES,
];

interface Sizes {
  readonly rounds: number;
  readonly links: readonly LinkRate[];
  readonly fileBytes: number;
  readonly recordBytes: readonly number[];
}

const KIB = 1024;
const QUICK: Sizes = { rounds: 2, links: ["10G"], fileBytes: 4096 * KIB, recordBytes: [4 * KIB] };
const USUAL: Sizes = {
  rounds: 3,
  links: ["10G"],
  fileBytes: 8192 * KIB,
  recordBytes: [4 * KIB, 64 * KIB],
};
const FULL: Sizes = {
  rounds: 5,
  links: ["1G", "10G", "none"],
  fileBytes: 64 * 1024 * KIB,
  recordBytes: [4, 16, 64, 256, 1024].map((size) => size * KIB),
};

/** The results of a setup over a link with a record size. */
class Cell {
  /** Bytes per second by operation. */
  readonly rates: number[][] = IOZONE_OPERATIONS.map(() => []);
  readonly stoppedPercent: number[] = [];
  readonly syncsPerSecond: number[] = [];
}

/** @throws {KemariError} QEMU, guest or link cannot be set up, or iozone fails. */
export async function benchIozone(context: BenchContext): Promise<BenchExperiment> {
  const sizes = sizesOf(context);
  const diskMiB = 32 + Math.ceil(sizes.fileBytes * 1.25 / 2 ** 20);
  await using lab = await GuestLab.make(context, diskMiB);
  const links = lab.links(sizes.links);
  const cells = new Map<string, Cell>();
  const cell = (setup: GuestSetup, link: LinkRate, recordBytes: number): Cell => {
    const key = `${setup.name}/${link}/${recordBytes}`;
    if (!cells.has(key)) cells.set(key, new Cell());
    return cells.get(key)!;
  };
  const total = sizes.rounds * SETUPS.length;
  for (let step = 0; step < total; step++) {
    context.signal.throwIfAborted();
    const round = Math.floor(step / SETUPS.length);
    const setup = SETUPS[(step + round) % SETUPS.length];
    context.progress("iozone", step, total, `round ${round + 1}, ${setup.name}`);
    await using run = await GuestRun.start(lab, setup);
    for (const link of links) {
      await lab.shape(link);
      for (const recordBytes of sizes.recordBytes) {
        await measure(run, sizes.fileBytes, recordBytes, cell(setup, link, recordBytes));
      }
    }
    if (step + 1 < total) {
      const partial = `${step + 1} of ${total} measurements`;
      context.keep({ ...experimentOf(lab, sizes, links, cell), partial });
    }
  }
  return experimentOf(lab, sizes, links, cell);
}

function sizesOf(context: BenchContext): Sizes {
  const base = context.full ? FULL : context.quick ? QUICK : USUAL;
  return {
    rounds: context.rounds ?? base.rounds,
    links: context.links ?? base.links,
    fileBytes: context.fileBytes ?? base.fileBytes,
    recordBytes: context.recordBytes ?? base.recordBytes,
  };
}

async function measure(
  run: GuestRun,
  fileBytes: number,
  recordBytes: number,
  cell: Cell,
): Promise<void> {
  let elapsedMs = 0;
  let stoppedMs = 0;
  let syncs = 0;
  for (const [index, { test }] of IOZONE_PARTS.entries()) {
    const fromMs = Date.now();
    const rates = decodeIozone(await run.run(iozoneCommand(test, fileBytes, recordBytes)));
    const toMs = Date.now();
    const stopped = run.stops.stoppedShare(fromMs, toMs);
    rates.forEach((rate, i) => cell.rates[2 * index + i].push(rate * (1 - stopped)));
    elapsedMs += toMs - fromMs;
    stoppedMs += stopped * (toMs - fromMs);
    syncs += run.stops.between(fromMs, toMs).length;
  }
  cell.stoppedPercent.push(stoppedMs / elapsedMs * 100);
  cell.syncsPerSecond.push(syncs / elapsedMs * 1000);
}

function experimentOf(
  lab: GuestLab,
  sizes: Sizes,
  links: readonly LinkRate[],
  cell: (setup: GuestSetup, link: LinkRate, recordBytes: number) => Cell,
): BenchExperiment {
  const grids: BenchGrid[] = [];
  for (const link of links) {
    for (const recordBytes of sizes.recordBytes) {
      const where = `records of ${recordBytes / KIB} KiB, link ${link}`;
      const rows = SETUPS.map(({ name }) => name);
      const rates: BenchGrid = {
        name: `iozone, ${where}`,
        unit: "MB/s",
        rows,
        columns: IOZONE_OPERATIONS,
        cells: SETUPS.map((setup) =>
          cell(setup, link, recordBytes).rates.map((samples) => samples.map((rate) => rate / 1e6))
        ),
      };
      grids.push(rates, ratioGrid(rates, `against unprotected, ${where}`, UNPROTECTED.name));
      grids.push({
        name: `meanwhile, ${where}`,
        unit: "% and 1/s",
        rows,
        columns: ["guest stopped, %", "syncs per second"],
        cells: SETUPS.map((setup) => {
          const { stoppedPercent, syncsPerSecond } = cell(setup, link, recordBytes);
          return [stoppedPercent, syncsPerSecond];
        }),
      });
    }
  }
  const records = sizes.recordBytes.map((bytes) => `${bytes / KIB} KiB`).join(", ");
  return {
    name: "iozone",
    about: "file I/O in the guest: iozone's rates on the host's clock, unprotected and protected",
    conditions: {
      ...lab.conditions(links.join(", ")),
      "file size": `${sizes.fileBytes / KIB} KiB`,
      "record sizes": records,
    },
    series: [],
    grids,
    notes: [
      `kemari is ${lab.kemari.about}; ${IOZONE_NOTE}`,
      "the guest's clock stands still while the guest does: iozone's rates are multiplied with the " +
      "share of the time in which the guest ran while they were taken",
      `${UNPROTECTED.name}: disk and NIC through kemari protect without a secondary, flushes reach ` +
      `the image; ${PLAIN.name}: -drive file=…, QEMU's default cache; protected disks answer ` +
      "flushes at once, since what the guest says of them waits for the secondary",
      `${KEMARI_2010.name}: one image for both ends, ${KEMARI_2010.options!.join(" ")}; ` +
      `${KEMARI_DEFAULT.name}: each end its own image, --commit async, a sync for packets and ` +
      `every ${SYNC_INTERVAL_MS} ms; QEMU's pair: a checkpoint every ${SYNC_INTERVAL_MS} ms`,
      ...pairNotes(lab.net !== undefined),
      ...lab.linkNotes(),
    ],
    cannotShow: [
      ...GUEST_LIMITS,
      "storage that two hosts share: the shared image is a file of this host, so the 2010 mode " +
      "reaches it faster than over a network",
    ],
  };
}
