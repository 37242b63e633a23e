import { getLogger } from "@logtape/logtape";
import type { DrillReport } from "../../drill/drill.ts";
import {
  DEVICES,
  type Devices,
  type DiskMode,
  type Fault,
  FAULTS,
  faultsFor,
  type Phase,
  PHASES,
} from "../../drill/plan.ts";
import { EXIT, UsageError } from "../../errors.ts";
import { defineCommand } from "../command.ts";
import { choice, flag, optionGroup, parsed } from "../options/option_group.ts";
import { json } from "../options/output.ts";
import { commitOption } from "../options/synchronization.ts";
import { parseCount, parseDurationMs } from "../../units.ts";

const fault = optionGroup("Fault", (command) =>
  command
    .option("--fault <names>", "what goes wrong: names with commas, or all", "primary")
    .addOption(
      parsed(
        "--ping-pong <n>",
        "instead of --fault: so many takeovers back and forth, under one client connection",
        parseCount,
      ),
    )
    .option(
      "--phase <names>",
      "the moment of the primary's death: names with commas, or all",
      "all",
    )
    .addOption(parsed("--seed <n>", "choose the same moments again", parseCount)));

const pair = optionGroup(
  "VM and hosts",
  (command) =>
    command
      .addOption(
        choice(
          "--form <form>",
          "client: a client outside of the guest looks on (needs root); memory: the guest's memory " +
            "is compared; auto: client where that can be",
          ["auto", "client", "memory"],
          "auto",
        ),
      )
      .option("--devices <models>", "the VM's NIC and disk: models with commas, or all", "virtio")
      .addOption(
        choice(
          "--disk-mode <mode>",
          "a disk for each host, or one that both can open",
          ["replicated", "shared"],
          "replicated",
        ),
      )
      .addOption(parsed("--memory <MiB>", "the guest's RAM", parseCount).default(256))
      .addOption(
        choice(
          "--standby <kind>",
          "warm: the secondary's QEMU has the RAM already; cold: it is given the RAM at the takeover",
          ["warm", "cold"],
          "cold",
        ),
      )
      .addOption(commitOption())
      .addOption(flag("--key", "encrypt the link between the hosts, with a key made for it"))
      .addOption(
        parsed("--grace <duration>", "silence after which a host counts as lost", parseDurationMs)
          .default(1500, "1500ms"),
      ),
  ({ memory, grace, ...rest }) => ({ ...rest, memoryMiB: memory, graceMs: grace }),
);

const runs = optionGroup("Runs", (command) =>
  command
    .addOption(
      parsed("--runs <n>", "how often each fault with each device model", parseCount).default(1),
    )
    .addOption(
      parsed("--seconds <s>", "how long to synchronize before the fault", parseCount).default(5),
    )
    .addOption(
      choice(
        "--boot <when>",
        "boot the guest for each run, or once and go on from there",
        ["each", "once"],
        "once",
      ),
    )
    .addOption(parsed("--jobs <n>", "how many runs at a time", parseCount).default(1))
    .addOption(flag("--keep", "leave the working folder behind")));

export const drill = defineCommand({
  name: "drill",
  summary: "rehearse a failover on real VMs of its own, and check that nothing was lost",
  groups: [fault, pair, runs, json],
  help: {
    examples: [
      "kemari drill",
      "kemari drill --runs 20 --json",
      "kemari drill --runs 1000 --seconds 1 --jobs 2 --json > drill.json",
      "kemari drill --fault all --devices all --seconds 1",
      "kemari drill --fault link --disk-mode shared --commit sync",
      "kemari drill --ping-pong 10",
      "kemari drill --standby warm --phase unseen --runs 20 --json",
      "kemari drill --form memory",
      "kemari drill --key --fault all",
    ],
    notes: [
      {
        title: "Forms",
        parts: [
          {
            client: `Two hosts in network namespaces (needs root). A client outside keeps one TCP
              connection to a service in the guest, which writes each message to the protected disk.
              Checked: the same connection, every acknowledged message on disk and in memory once, a
              clean file system, the replica's disk against the primary's, and that no packet comes
              from both hosts.`,
            memory:
              `The guest counts on its console and in memory. Checked: the count, a checksum over
              a large file in memory, the same boot. Without disk and NIC, this form knows only the
              fault primary. It refuses --ping-pong, and all but the defaults of --devices,
              --disk-mode and --commit.`,
          },
          "If no QEMU can be had, a recorded QEMU is replayed instead.",
        ],
      },
      {
        title: "Faults",
        parts: [
          {
            primary: "the primary's QEMU and its kemari are killed (kill -9)",
            sender:
              `the primary's kemari alone is killed: its VM loses disk and NIC, and the secondary
                goes on`,
            link:
              `the cable between the hosts is cut, and all processes live on: the primary must stop
                by itself`,
            receiver: `the secondary is killed: the primary goes on, is protected again, and then is
              killed`,
            copy: `the primary is killed during the first disk copy: the secondary must refuse to
              activate`,
            apply: "the primary is killed while the secondary writes a transaction to its disk",
          },
          "copy and apply need a replicated disk. Faults come at random moments.",
        ],
      },
      {
        title: "Phases in which the primary dies",
        parts: [
          {
            checkpoint: "the VM stands still for a checkpoint",
            "in-flight": "the VM runs, and a transaction is arriving",
            unreleased: "a transaction is committed, and its output is not all out",
            idle: "none of these",
            unseen: "at any moment, without a look: the phase to measure gaps with",
          },
          `For every phase but unseen, the primary's kemari is frozen and looked at first, which
            makes the gap longer. --seed chooses the same moments again, not what the VM does.`,
        ],
      },
      {
        title: "Ping-pong",
        parts: [
          `A host dies, and the other takes over; the dead host comes back as the secondary with
            its old image, of which only what differs is copied; and so on, back and forth, always
            with the same client connection. Each takeover is reported as a run.`,
        ],
      },
      {
        title: "Device models",
        parts: [
          {
            virtio: "virtio-net and virtio-blk",
            "e1000-ahci": "e1000 and SATA",
            "virtio-scsi": "virtio-net and virtio-scsi",
          },
        ],
      },
      {
        title: "Runs",
        parts: [
          `With --boot once, the runs of a device model start from the saved state of a VM that
            has booted; the fault copy, whose disk is another one, and the form memory boot each
            time. Runs that --jobs lets go on at the same time need a core each and three times
            --memory, and slow each other down: measure gaps with --jobs 1.`,
          `The report's gap is the client's, from answer to answer; silent is the time from
            the guest's last TCP segment at one host to its first at the other, which may be a
            packet sent again before the VM runs there. Under TCG, a QEMU that has just taken over works slowly
            at first, because it translates the guest's code anew: with kemari or without, its
            first answer takes about 150 ms longer.`,
          `A run whose checks fail leaves its folder behind, and says where. An interrupted drill
            still reports the runs that were done.`,
        ],
      },
    ],
    exits: {
      done: "every check of every run held",
      bytes: "a check did not hold",
      connection: "a connection, file or process failed",
      qemu: "QEMU refused or could not be set up",
    },
  },
  async run(_args, options, context) {
    const { drill } = await import("../../drill/drill.ts");
    const { formatDrill } = await import("../output/drill_text.ts");
    const log = getLogger(["kemari", "drill"]);
    if (options.pingPong !== undefined && options.fault !== "primary") {
      throw new UsageError(
        "--ping-pong is takeovers after the primary's death, and no other fault",
        {
          hint: "leave --fault away",
        },
      );
    }
    const narrate = (line: string) => {
      if (options.logFormat === "json") log.info("{line}", { line });
      else if (!options.quiet) context.status.print(`drill: ${line}\n`);
    };
    const settings = {
      ...options,
      faults: parseFaults(options.fault, options.diskMode),
      devices: parseDevices(options.devices),
      phases: parsePhases(options.phase),
      seed: options.seed ?? crypto.getRandomValues(new Uint32Array(1))[0],
      fillMiB: Math.min(64, Math.floor(options.memoryMiB / 4)),
      syncIntervalMs: 20,
    };
    const write = (report: DrillReport) =>
      context.writeOut(options.json ? JSON.stringify(report) + "\n" : formatDrill(report));
    // A drill that has run for long has results when it is ended.
    const report = await drill(settings, narrate, context.signal, write);
    write(report);
    return report.held ? EXIT.done : EXIT.bytes;
  },
});

/**
 * Reads `--fault`.
 *
 * @throws {UsageError} if a fault is not known, or cannot happen to such a disk.
 */
export function parseFaults(text: string, diskMode: DiskMode): readonly Fault[] {
  const possible = faultsFor(diskMode);
  const faults = parseNames("--fault", text, FAULTS, possible);
  const impossible = faults.find((fault) => !possible.includes(fault));
  if (impossible === undefined) return faults;
  throw new UsageError(
    `--fault ${impossible} cannot happen to a shared disk: it is neither copied nor applied`,
    { hint: "use --disk-mode replicated" },
  );
}

/** Reads `--devices`. @throws {UsageError} if a model is not known. */
export function parseDevices(text: string): readonly Devices[] {
  return parseNames("--devices", text, DEVICES, DEVICES);
}

/** Reads `--phase`. @throws {UsageError} if a phase is not known. */
export function parsePhases(text: string): readonly Phase[] {
  return parseNames("--phase", text, PHASES, PHASES);
}

/** @param all The meaning of `all`. */
function parseNames<Name extends string>(
  option: string,
  text: string,
  known: readonly Name[],
  all: readonly Name[],
): readonly Name[] {
  if (text.trim() === "all") return all;
  const names = text.split(",").map((word) => word.trim());
  const isKnown = (name: string): name is Name => (known as readonly string[]).includes(name);
  const strange = names.find((name) => !isKnown(name));
  if (strange !== undefined) {
    throw new UsageError(`${option}: "${strange}" is none of ${known.join(", ")}, all`);
  }
  return [...new Set(names.filter(isKnown))];
}
