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
    .option(
      "--qmp <socket>",
      "QEMU's QMP monitor (PATH, unix:PATH or HOST:PORT): if the secondary is lost, the VM is set " +
        "running again",
    )
    .addOption(
      choice(
        "--stream <kind>",
        "what QEMU sends; plain: a stream that ends; colo: checkpoints without end; auto: what the " +
          "stream says",
        ["auto", "plain", "colo"],
        "auto",
      ),
    ));

export const send = defineCommand({
  name: "send",
  summary: "send QEMU's migration stream (stdin) to a secondary, transaction by transaction",
  arguments: (command) => command.argument("<target>", "where the secondary listens"),
  groups: [
    qemu,
    vmName,
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
      `migrate "exec:kemari send ssh:secondary"  # into QEMU's monitor`,
      `migrate "exec:kemari send secondary:4000 --key KEY"  # as well`,
      `kemari send unix:/run/kemari.sock < vm.stream`,
      `kemari send ssh:secondary --over-ssh --recv "unix:/run/k --exec ./start-vm" \\
      < vm.stream`,
    ],
    notes: [
      TARGETS,
      SSH,
      SECURITY,
      {
        title: "QEMU",
        parts: [
          `Without --qmp, a stream that breaks off is a loss, however its VM has ended. With
            --qmp, the secondary is told if the VM was shut down, or if somebody has ended the
            migration and the VM is still here.`,
        ],
      },
      COMPRESSION,
      IMAGES,
      DISKS,
    ],
    exits: {
      done:
        "the stream ended and the secondary has committed all of it; or, with --qmp, the VM was " +
        "shut down",
      bytes: "the stream is at fault, or the secondary refused it",
      connection: "the secondary is lost or was never reached",
      qemu: "QEMU refused a QMP command",
    },
  },
  async run([target], options, context) {
    const { parsePrimaryTaps } = await import("../options/parse_taps.ts");
    const { SendFront, stayInFront } = await import("../../host/send_front.ts");
    const settings = { ...options, target, ...parsePrimaryTaps(options) };
    const { nets, disks } = settings.taps;
    const front = SendFront.ofThisProcess();
    // When QEMU's stream is over, its monitor is still needed, and the taps are still served.
    if (front === undefined && (options.qmp !== undefined || nets.length + disks.length > 0)) {
      return await stayInFront(context.signal);
    }
    const { send } = await import("../../host/send.ts");
    await send(settings, context.status, context.signal, front);
  },
});
