import { UsageError } from "../../errors.ts";
import { defineCommand } from "../command.ts";
import { connection, LISTENERS } from "../options/connection.ts";
import { choice, optionGroup, parsed } from "../options/option_group.ts";
import { SECURITY, security } from "../options/security.ts";
import { IMAGES, taps } from "../options/taps.ts";
import { parseDurationMs, parseSizeBytes } from "../../units.ts";

const loss = optionGroup(
  "Loss of the primary",
  (command) =>
    command
      .addOption(
        choice(
          "--on-loss <action>",
          "what to do when the primary is lost",
          ["wait", "activate", "exit"],
          "wait",
        ),
      )
      .option("--fence <cmd>", `command that must succeed before activation, or "none"`)
      .addOption(
        parsed("--fence-timeout <duration>", "how long that command may take", parseDurationMs)
          .default(30_000, "30s"),
      ),
  ({ fenceTimeout, ...rest }) => {
    checkFencing(rest);
    return { ...rest, fenceTimeoutMs: fenceTimeout };
  },
);

const activation = optionGroup("Activation", (command) =>
  command
    .option("--exec <cmd>", "on activation start this QEMU, with the stream on its stdin")
    .option(
      "--standby <cmd>",
      "run this QEMU beside the replica, sharing its RAM; on activation it loads only the state of " +
        "the devices",
    )
    .option(
      "--replay <what>",
      "what to repeat on activation: net, disk, input, some of them with commas, or none",
      "net,disk,input",
    ));

const replica = optionGroup(
  "Replica",
  (command) =>
    command
      .option(
        "--ram-dir <folder>",
        "keep the RAM in files there; if this recv is killed, another recv goes on with them",
      )
      .addOption(
        choice(
          "--ram-reserve <how>",
          "whether room for all of the RAM is reserved there",
          ["full", "none"],
          "full",
        ),
      )
      .option("--replace", "let one other VM take the place of the VM whose replica is kept here")
      .addOption(
        parsed(
          "--max-transaction <size>",
          "the largest transaction to buffer, the first one included (default: half of the free " +
            "memory)",
          parseSizeBytes,
        ),
      ),
  ({ maxTransaction, ...rest }) => ({ ...rest, maxTransactionBytes: maxTransaction }),
);

export const recv = defineCommand({
  name: "recv",
  summary: "take transactions; on activation write one migration stream to stdout, and exit",
  arguments: (command) => command.argument("<listen>", "where to listen for the primary"),
  groups: [loss, activation, replica, connection, security, taps],
  help: {
    examples: [
      `kemari recv 0.0.0.0:4000 --control /run/kemari.ctl \\
      --exec "qemu-system-x86_64 … -incoming fd:0"  # for ssh:THIS-HOST`,
      `kemari recv 0.0.0.0:4000 --key /etc/kemari.key | qemu-system-x86_64 … \\
      -incoming fd:0`,
      `kemari recv unix:/run/kemari.sock > vm.stream`,
      `kemari recv 0.0.0.0:4000 --tls-dir /etc/pki/qemu --on-loss activate \\
      --fence "…" \\
      --standby "qemu-system-x86_64 -machine q35 -m 4096 …same devices…"`,
      `kemari recv 10.0.0.2:4000 --plain --ram-dir /dev/shm/vm \\
      --control /run/kemari.ctl > vm.stream`,
      `kemari recv 0.0.0.0:4000 --key /etc/kemari.key --on-loss activate \\
      --fence "ipmitool … power off" \\
      --exec "qemu-system-x86_64 … -incoming fd:0"`,
    ],
    notes: [
      LISTENERS,
      SECURITY,
      {
        title: "On loss",
        parts: [
          `A stream that ends is a handover: the secondary activates. A connection that dies is a
            loss, and does not prove that the primary is dead. "activate" therefore needs --fence:
            a command that makes sure that the primary is dead, or "none" if something else does.
            Without fencing both VMs may run at once.`,
          `A VM that is shut down or sleeps, or whose protection is ended, is not lost: the primary
            says so, nobody is fenced, nothing is started, and the replica is kept. If a VM was
            shut down and no sender can come back (exec:, stdio: or --on-loss exit), recv ends
            with 0.`,
        ],
      },
      {
        title: "Replay",
        parts: [
          `What may not have happened at the primary is repeated before the VM goes on, so it may
            happen twice.`,
          {
            net: "packets that the guest had sent, and that were committed",
            disk: "writes to a shared image",
            input: `packets that the world sent to the guest, from 100 ms before the last commit on.
              Without input, a client's request from that time is answered when the client repeats
              it, after 200 ms or more; with input, the guest may get a packet twice.`,
          },
        ],
      },
      {
        title: "Whose replica",
        parts: [
          `A recv keeps one VM's replica. The VM is known by its UUID, or else by its name
            (QEMU's, or what --vm at the sender says), or else by its QEMU process and devices.
            Another VM's sender is refused, and changes nothing.`,
          `--replace lets one other VM in: the first that comes, until that VM has committed;
            from then on the replica is that VM's. The permission ends with this process, so leave
            --replace out of unit files.`,
          `The replica lasts as long as this process, or as its --ram-dir. A replicated disk's
            image has an attribute user.kemari.copy-of, which says whose disk it is a copy of,
            until the VM runs on it.`,
        ],
      },
      IMAGES,
      {
        title: "Standby",
        parts: [
          `--standby takes the primary's command line up to its last device, without -incoming.
            The RAM of that QEMU becomes files in --ram-dir (default: a folder in /dev/shm). The
            standby is checked before the first transaction is acknowledged, and started again if
            it dies. Before a cold start replaces it, it is killed. A cold start runs --exec if
            given, else the same command with -incoming fd:0, which needs the RAM a second time.`,
          `If the primary's devices change, the standby is checked again. If it lacks one of
            them, the sender is refused with that device's name, and what was acknowledged is
            kept. Without a standby this is a warning: the QEMU that is to take the VM over must
            have the device.`,
        ],
      },
      {
        title: "RAM files",
        parts: [
          `Before anything is acknowledged, room for all of the guest's RAM is reserved in
            --ram-dir; on a tmpfs that takes as much memory. With --ram-reserve none, a VM that
            has taken over dies when the file system is full. btrfs, ZFS and bcachefs write each
            page to a new place and may fill up in spite of the reservation. A file system that
            cannot reserve is refused.`,
        ],
      },
      {
        title: "Pipes",
        parts: [
          `A QEMU that reads the stream, behind stdout with -incoming or started by --exec, is
            watched until it has loaded the stream and lives. If it ends instead, recv keeps a
            replica that is in --ram-dir and ends with 5; with --exec and --control, recv waits
            for another kemari failover. QEMU's own messages are on its stderr. Of other programs
            behind a pipe recv knows nothing: in a shell script, set -o pipefail.`,
        ],
      },
    ],
    exits: {
      done:
        "activated, and the whole stream has been written (with --exec or --standby: QEMU's own " +
        "exit status); or the VM was shut down at the primary",
      bytes: "the primary's bytes are at fault",
      connection: "the primary is lost (--on-loss exit), or fencing or writing failed",
      qemu:
        "the standby does not start, or is not the primary's machine; or the QEMU that was given " +
        "the VM did not load it",
    },
  },
  async run([listen], options, context) {
    const { parseTaps, parseWords } = await import("../options/parse_taps.ts");
    const { recv } = await import("../../host/recv.ts");
    const words = parseWords("--replay", options.replay, ["net", "disk", "input"]);
    const replay = {
      net: words.includes("net"),
      disk: words.includes("disk"),
      input: words.includes("input"),
    };
    const settings = { ...options, listen, ...parseTaps(options), replay };
    return await recv(settings, context.status, context.signal);
  },
});

/**
 * Refuses an activation that could leave two VMs running.
 *
 * @throws {UsageError} `--on-loss activate` without `--fence`, or with an empty one.
 */
export function checkFencing(
  options: { readonly onLoss: "wait" | "activate" | "exit"; readonly fence?: string },
): void {
  if (options.fence !== undefined && options.fence.trim() === "") {
    throw new UsageError("--fence needs a command", { hint: 'Or give "--fence none" explicitly' });
  }
  if (options.onLoss !== "activate" || options.fence !== undefined) return;
  throw new UsageError(
    "--on-loss activate needs --fence: a lost connection does not prove that the primary is dead. " +
      "If only the network failed, both VMs would run with the same addresses and disks (split brain)",
    {
      hint: "Give --fence CMD, a command that makes sure the primary is off (it must exit 0), " +
        'or "--fence none" if something else guarantees it',
    },
  );
}
