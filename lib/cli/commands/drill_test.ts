import assert from "node:assert/strict";
import type { DrillReport, DrillRun } from "../../drill/drill.ts";
import { UsageError } from "../../errors.ts";
import { parseDevices, parseFaults, parsePhases } from "./drill.ts";
import { formatDrill } from "../output/drill_text.ts";

Deno.test("--fault and --devices take names, each once, or all that is possible", () => {
  assert.deepEqual(parseFaults("link, primary,link", "shared"), ["link", "primary"]);
  assert.deepEqual(parseFaults("all", "replicated"), [
    "primary",
    "sender",
    "link",
    "receiver",
    "copy",
    "apply",
  ]);
  assert.deepEqual(parseFaults("all", "shared"), ["primary", "sender", "link", "receiver"]);
  assert.deepEqual(parseDevices("all"), ["virtio", "e1000-ahci", "virtio-scsi"]);
  assert.deepEqual(parsePhases("in-flight,unseen"), ["in-flight", "unseen"]);
});

Deno.test("what --fault and --devices do not know, or cannot do, is refused by name", () => {
  const cases: [() => unknown, RegExp][] = [
    [() => parseFaults("primary,fire", "replicated"), /--fault: "fire" is none of primary, /],
    [() => parseFaults("", "replicated"), /--fault: "" is none of/],
    [() => parseFaults("copy", "shared"), /copy cannot happen to a shared disk/],
    [() => parsePhases("lunch"), /--phase: "lunch" is none of unseen, idle, checkpoint, /],
    [() => parseDevices("e1000"), /--devices: "e1000" is none of virtio, e1000-ahci, virtio-scsi/],
  ];
  for (const [parse, message] of cases) {
    assert.throws(parse, (error) => error instanceof UsageError && message.test(error.message));
  }
});

const RUN: DrillRun = {
  run: 1,
  case: { fault: "primary", devices: "virtio", diskMode: "replicated", commit: "async" },
  checks: [{ name: "it lives", held: true, detail: "yes" }],
  phase: "idle",
  transaction: 7,
  syncs: 6,
  syncsPerSecond: 50,
  pages: 100,
  zeroPages: 3,
  wireBytes: 2 ** 20,
  pauseP50Ms: 1,
  pauseP99Ms: 2,
  commitAgeMs: 4,
  lastCount: 9,
  firstCount: 10,
  outageMs: 200,
  silenceMs: 80,
  heldP50Ms: 12,
  heldP99Ms: 20,
};

function report(runs: DrillRun[]): DrillReport {
  const held = runs.every(({ checks }) => checks.every((check) => check.held));
  const machine = { qemu: "11.1.3", guestKernels: ["6.1"], memoryMiB: 256 };
  return { ...machine, form: "client", boot: "once", jobs: 2, seed: 5, held, runs };
}

Deno.test("one run is told in a block of its own", () => {
  assert.deepEqual(formatDrill(report([RUN])).split("\n"), [
    "QEMU 11.1.3, guest kernel 6.1, 256 MiB, seed 5",
    "",
    "run 1 (primary, virtio): every check held",
    "  syncs           6 (50.0/s)",
    "  pages           100 and 3 of zeros",
    "  sent            1.0 MiB",
    "  pause           p50 1.00 ms, p99 2.00 ms",
    "  frames held     p50 12.00 ms, p99 20.00 ms",
    "  phase           idle",
    "  last heard      number 9; transaction 7 committed 4 ms before the fault",
    "  client          answer 10 after a gap of 200 ms, its connection silent for 80 ms",
    "",
  ]);
});

Deno.test("many runs are told in a table, with what failed and percentiles over each fault", () => {
  const failed = [{ name: "it lives", held: false, detail: "it does not" }];
  const copy: DrillRun = {
    ...RUN,
    run: 4,
    case: { ...RUN.case!, fault: "copy" },
    checks: failed,
    phase: "3 % copied",
    outageMs: undefined,
    silenceMs: undefined,
  };
  const runs = [RUN, { ...RUN, run: 2, outageMs: 300 }, { ...RUN, run: 3, outageMs: 250 }, copy];
  const lines = formatDrill(report(runs)).split("\n");
  const words = [2, 3, 6].map((line) => lines[line].trim().split(/ {2,}/));
  assert.deepEqual(words, [
    [
      ...["run", "fault", "devices", "phase", "gap ms", "silent ms", "syncs", "held p50/p99 ms"],
      ...["sent", "checks"],
    ],
    ["1", "primary", "virtio", "idle", "200", "80", "6", "12.0 / 20.0", "1.0 MiB", "held"],
    ["4", "copy", "virtio", "3 % copied", "-", "-", "6", "12.0 / 20.0", "1.0 MiB", "FAILED"],
  ]);
  assert.deepEqual(lines.slice(7), [
    "run 4: FAILED          it lives: it does not",
    "",
    "gap (primary) over 3 runs, 2 at a time: p50 250 ms, p99 300 ms; connection silent: p50 80 ms, p99 80 ms",
    "3 of 4 runs held",
    "",
  ]);
});
