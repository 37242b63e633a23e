import { UsageError } from "../../errors.ts";
import { defineCommand } from "../command.ts";
import { COMPRESSION, compression } from "../options/compression.ts";
import { connection, TARGETS } from "../options/connection.ts";
import { choice, optionGroup } from "../options/option_group.ts";
import { SECURITY, security } from "../options/security.ts";
import { SSH, ssh } from "../options/ssh.ts";
import { synchronization } from "../options/synchronization.ts";
import { DISKS, IMAGES, primaryDisks, taps } from "../options/taps.ts";
import { vmName } from "../options/vm_name.ts";

const qemu = optionGroup("VM", (command) =>
  command
    .requiredOption("--qmp <socket>", "QEMU's QMP monitor: PATH, unix:PATH or HOST:PORT")
    .option(
      "--via <socket>",
      "after a takeover: control socket of the kemari recv that serves the VM's disks and NICs; " +
        "instead of --net, --disk and --control",
    )
    .addOption(
      choice(
        "--mode <mode>",
        "colo: QEMU's own checkpoints; snapshot: a loop of snapshots; auto: the best that this QEMU " +
          "can do",
        ["auto", "colo", "snapshot"],
        "auto",
      ),
    ));

const loss = optionGroup(
  "Loss of the secondary",
  (command) =>
    command
      .addOption(
        choice(
          "--on-secondary-loss <action>",
          "whether the VM goes on unprotected or stops",
          ["continue", "stop"],
          "continue",
        ),
      )
      .option("--retry", "connect again after the secondary was lost (default)")
      .option("--no-retry", "exit when the secondary is lost"),
  // A pair of --x and --no-x has no default of its own.
  ({ retry, ...rest }) => ({ ...rest, retry: retry ?? true }),
);

export const protect = defineCommand({
  name: "protect",
  summary: "attach to a running QEMU by QMP and keep it synchronized with a secondary",
  arguments: (command) => command.argument("<target>", "where the secondary listens"),
  groups: [
    qemu,
    vmName,
    loss,
    connection,
    ssh,
    security,
    synchronization,
    taps,
    primaryDisks,
    compression,
  ],
  help: {
    examples: [
      `kemari protect ssh:secondary --qmp /run/vm/qmp.sock`,
      `kemari protect ssh:root@secondary:/run/vm1.ctl --over-ssh \\
      --ssh "ssh -i /root/.ssh/kemari" --qmp /run/vm1/qmp.sock`,
      `kemari protect secondary:4000 --key /etc/kemari.key \\
      --qmp /run/vm/qmp.sock --commit sync --on-secondary-loss stop`,
      `kemari protect secondary:4000 --tls-dir /etc/pki/qemu \\
      --qmp /run/vm/qmp.sock --compress delta --delta-cache 1G`,
      `kemari protect repaired:4000 --key /etc/kemari.key \\
      --qmp /run/vm/qmp.sock --via /run/kemari-recv.ctl`,
    ],
    notes: [
      TARGETS,
      SSH,
      SECURITY,
      COMPRESSION,
      IMAGES,
      DISKS,
      {
        title: "QEMU",
        parts: [
          `kemari hands QEMU its end of the connection through the monitor, so that QEMU may run
            as any user and in any sandbox. A monitor over TCP cannot pass a descriptor: QEMU is
            then told a path, which it must be able to reach. A VM that does not run yet (-S, or
            paused) is waited for. Capabilities, parameters and the machine's suppress-vmdesc are
            changed while the VM is protected, and put back afterwards.`,
        ],
      },
      {
        title: "Whose replica",
        parts: [
          `The secondary is told which VM this is: by QEMU's -uuid, or else its -name; --vm NAME
            stands in for both. A VM that has neither is known by its QEMU process, and by its
            machine, RAM, MAC addresses and disks. A secondary refuses every VM but the one whose
            replica it keeps (exit status 3); another try does not help.`,
        ],
      },
      {
        title: "Ends",
        parts: [
          `Interrupt this command to end a protection (Ctrl-C, systemctl stop): the VM runs on
            here. When the VM is shut down, by its guest, by QEMU's quit or by a signal, the
            secondary is told and starts nothing, and this command ends with 0. A guest that
            suspends itself is protected again when it wakes.`,
          `If somebody ends QEMU's migration (migrate_cancel, x-colo-lost-heartbeat), the VM runs
            on here, and is protected again after a while. After migrate_cancel, QEMU 8 and later
            cannot be protected again until QEMU is started anew.`,
        ],
      },
      {
        title: "After a takeover",
        parts: [
          `The VM's disks and NICs are served by the kemari recv that took the VM over. --via
            asks that recv to protect the VM again, towards a kemari recv on the repaired host.
            The protection lasts as long as this command. A disk is compared first, and only what
            differs is sent.`,
        ],
      },
    ],
    exits: {
      done: "the VM was shut down, and the secondary knows; or the VM was migrated elsewhere",
      bytes: "QEMU's stream is at fault, or the secondary refused it",
      connection:
        "QEMU has died; or the secondary was never there, is lost and --no-retry was given, or has " +
        "not acknowledged a shutdown",
      qemu: "this QEMU or this VM cannot be protected, or a command was refused",
    },
  },
  async run([target], options, context) {
    const { parsePrimaryTaps } = await import("../options/parse_taps.ts");
    const settings = { ...options, target, ...parsePrimaryTaps(options) };
    const { via, control, ...rest } = settings;
    if (via === undefined) {
      const { protect } = await import("../../host/protect/protect.ts");
      return await protect(settings, context.status, context.signal);
    }
    const own = [["--net", options.net.length > 0], ["--disk", options.disk.length > 0], [
      "--control",
      control !== undefined,
    ]].filter(([, given]) => given).map(([name]) => name);
    if (own.length > 0) {
      throw new UsageError(`${own.join(", ")} cannot be given with --via`, {
        hint: `the kemari at ${via} has the VM's taps, and its socket tells the status`,
      });
    }
    const { protectVia } = await import("../../host/protect/protect_via.ts");
    // Without --sync-on, the kinds of disks decide: only that end knows them.
    const syncOn = options.syncOn === undefined ? undefined : settings.syncOn;
    await protectVia(via, { ...rest, syncOn }, context.status, context.signal);
  },
});
