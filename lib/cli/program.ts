/** The command line: what may be written, and what becomes of it. */
import { Command, CommanderError, Option } from "@commander-js/extra-typings";
import { EXIT, UsageError } from "../errors.ts";
import { addBenchCommands } from "./bench_command.ts";
import { COMMANDS, type Commands, type Run } from "./commands.ts";
import type { ProcessIo } from "./context.ts";
import { addDrillCommand } from "./drill_command.ts";
import { helpAfter, PROGRAM_HELP_AFTER } from "./help_text.ts";
import {
  checkFencing,
  checkLink,
  type LogOptions,
  parseDurationMs,
  parseSizeBytes,
} from "./options.ts";
import {
  commit,
  compress,
  control,
  dedup,
  deltaCache,
  disk,
  diskSync,
  grace,
  heartbeat,
  json,
  logFormat,
  maxInFlight,
  named,
  net,
  noDedup,
  progress,
  quiet,
  sessionName,
  syncInterval,
  syncMinInterval,
  syncOn,
  vm,
} from "./shared_options.ts";
import { StatusLine, type StatusMode } from "./status_line.ts";

/** What `--log-format`, `--quiet` and `--progress` make of the status line. */
function statusMode(options: LogOptions, isTerminal: boolean): StatusMode {
  if (options.logFormat === "json" || options.progress === "never") return "off";
  if (options.progress === "always") return isTerminal ? "redraw" : "lines";
  return isTerminal && !options.quiet ? "redraw" : "off";
}

/** Sets up logging, runs a command and leaves the terminal clean. */
async function runCommand<Options extends LogOptions>(
  run: Run<Options>,
  options: Options,
  io: ProcessIo,
): Promise<number> {
  const { configureLog } = await import("./log.ts");
  const status = new StatusLine(io.stderr, statusMode(options, io.stderr.isTerminal));
  await configureLog(options, (line) => status.print(line));
  const writeOut = (text: string) => {
    status.hide(); // stdout may be the same terminal
    io.writeOut(text);
  };
  try {
    return await run(options, { ...io, writeOut, status }) ?? EXIT.done;
  } finally {
    status.clear();
  }
}

/** How commander's complaint reads as ours. */
function usageErrorOf(error: CommanderError): UsageError {
  const message = error.message.replace(/^error: /, "").replaceAll("\n", " ");
  return new UsageError(message, { hint: "See kemari --help, or kemari help COMMAND" });
}

/**
 * Parses a command line and runs what it asks for.
 *
 * @param args The arguments after `kemari`.
 * @param version What `--version` prints.
 * @returns The exit code.
 * @throws {UsageError} The command line is wrong.
 * @throws Whatever the command throws.
 */
export async function runProgram(
  args: readonly string[],
  version: string,
  io: ProcessIo,
  commands: Commands = COMMANDS,
): Promise<number> {
  let exitCode: number = EXIT.done;
  const run = async <Name extends keyof Commands>(
    name: Name,
    options: Parameters<Commands[Name]>[0],
  ): Promise<void> => {
    exitCode = await runCommand(commands[name] as Run<typeof options>, options, io);
  };
  try {
    await createProgram(version, io, run).parseAsync(args, { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return EXIT.done;
    // Help that nobody asked for is how commander says that the command is missing.
    if (error.code === "commander.help") return EXIT.usage;
    throw usageErrorOf(error);
  }
  return exitCode;
}

type Runner = <Name extends keyof Commands>(
  name: Name,
  options: Parameters<Commands[Name]>[0],
) => Promise<void>;

/** Builds the grammar. Errors and exits are thrown, never carried out. */
function createProgram(version: string, io: ProcessIo, run: Runner) {
  const width = () => Math.min(100, io.stderr.columns());
  const program = new Command("kemari")
    .description("Keeps a running VM alive through the death of its host. Stock QEMU, two ends.")
    .version(`kemari ${version}`)
    // Otherwise a command would take its own subcommand's options for its own.
    .enablePositionalOptions()
    .configureOutput({
      writeOut: (text) => io.writeOut(text),
      writeErr: (text) => io.stderr.write(text),
      outputError: () => {},
      getOutHelpWidth: width,
      getErrHelpWidth: width,
      getOutHasColors: () => false,
      getErrHasColors: () => false,
    })
    .exitOverride((error) => {
      throw error;
    })
    .addHelpText("after", PROGRAM_HELP_AFTER);

  program.command("send")
    .description("send QEMU's migration stream (stdin) to a secondary, transaction by transaction")
    .argument("<target>", "where the secondary listens")
    .option(
      "--qmp <socket>",
      "QEMU's QMP socket: if the secondary is lost, the VM is set running again",
    )
    .addOption(
      new Option("--stream <kind>", "what QEMU sends, where the stream does not say so itself")
        .choices(["auto", "plain", "colo"] as const).default("auto" as const),
    )
    .addOption(commit).addOption(maxInFlight).addOption(sessionName).addOption(vm)
    .addOption(compress).addOption(dedup).addOption(noDedup).addOption(deltaCache)
    .addOption(net).addOption(disk)
    .addOption(diskSync).addOption(syncOn).addOption(syncInterval).addOption(syncMinInterval)
    .addOption(heartbeat).addOption(grace).addOption(control)
    .addOption(logFormat).addOption(quiet).addOption(progress)
    .addHelpText("after", helpAfter("send"))
    .action(async (target, options) => {
      const { maxInFlight, syncInterval, syncMinInterval, heartbeat, grace, deltaCache, ...rest } =
        options;
      const link = { heartbeatMs: heartbeat, graceMs: grace };
      checkLink(link);
      await run("send", {
        ...rest,
        ...link,
        target,
        maxInFlightBytes: maxInFlight,
        deltaCacheBytes: deltaCache,
        syncIntervalMs: syncInterval,
        syncMinIntervalMs: syncMinInterval,
      });
    });

  program.command("recv")
    .description("take transactions; on activation write one migration stream to stdout, and exit")
    .argument("<listen>", "where to listen for the primary")
    .addOption(
      new Option("--on-loss <action>", "what to do when the primary is lost")
        .choices(["wait", "activate", "exit"] as const).default("wait" as const),
    )
    .option("--fence <cmd>", `command that must succeed before activation, or "none"`)
    .addOption(
      new Option("--fence-timeout <duration>", "how long that command may take")
        .argParser(named("--fence-timeout", parseDurationMs)).default(30_000, "30s"),
    )
    .option("--exec <cmd>", "on activation start this QEMU, with the stream on its stdin")
    .option(
      "--standby <cmd>",
      "run this QEMU beside the replica, with its RAM; on activation it takes device state alone",
    )
    .option(
      "--ram-dir <folder>",
      "keep the RAM in files there; another recv goes on with them if this one is killed",
    )
    .option("--replace", "let one other VM take the place of the one that is kept here, see below")
    .addOption(
      new Option("--ram-reserve <how>", "whether room for all of the RAM is reserved there")
        .choices(["full", "none"] as const).default("full" as const),
    )
    .addOption(net).addOption(disk)
    .option("--replay <what>", "what to say again on activation, see below", "net,disk,input")
    .addOption(
      new Option(
        "--max-transaction <size>",
        "the largest transaction to buffer, the first one included (default: half of the free memory)",
      ).argParser(named("--max-transaction", parseSizeBytes)),
    )
    .addOption(heartbeat).addOption(grace).addOption(control)
    .addOption(logFormat).addOption(quiet).addOption(progress)
    .addHelpText("after", helpAfter("recv"))
    .action(async (listen, { fenceTimeout, maxTransaction, heartbeat, grace, ...rest }) => {
      const link = { heartbeatMs: heartbeat, graceMs: grace };
      checkLink(link);
      checkFencing(rest);
      await run("recv", {
        ...rest,
        ...link,
        listen,
        fenceTimeoutMs: fenceTimeout,
        maxTransactionBytes: maxTransaction,
      });
    });

  program.command("protect")
    .description("attach to a running QEMU by QMP and keep it synchronized with a secondary")
    .argument("<target>", "where the secondary listens")
    .requiredOption("--qmp <socket>", "QEMU's QMP monitor: PATH, unix:PATH or HOST:PORT")
    .option(
      "--via <socket>",
      "after a takeover: control socket of the kemari recv that serves the VM's disks and NICs",
    )
    .addOption(
      new Option("--mode <mode>", "COLO checkpoints, a loop of snapshots, or what this QEMU can do")
        .choices(["auto", "colo", "snapshot"] as const).default("auto" as const),
    )
    .addOption(commit).addOption(maxInFlight).addOption(sessionName).addOption(vm)
    .addOption(
      new Option("--on-secondary-loss <action>", "whether the VM goes on unprotected or stops")
        .choices(["continue", "stop"] as const).default("continue" as const),
    )
    .addOption(compress).addOption(dedup).addOption(noDedup).addOption(deltaCache)
    .addOption(net).addOption(disk)
    .addOption(diskSync).addOption(syncOn).addOption(syncInterval).addOption(syncMinInterval)
    .option("--retry", "connect again after the secondary was lost (default)")
    .option("--no-retry", "exit when the secondary is lost")
    .addOption(heartbeat).addOption(grace).addOption(control)
    .addOption(logFormat).addOption(quiet).addOption(progress)
    .addHelpText("after", helpAfter("protect"))
    .action(async (target, options) => {
      const {
        maxInFlight,
        syncInterval,
        syncMinInterval,
        heartbeat,
        grace,
        retry,
        deltaCache,
        ...rest
      } = options;
      const link = { heartbeatMs: heartbeat, graceMs: grace };
      checkLink(link);
      await run("protect", {
        ...rest,
        ...link,
        target,
        maxInFlightBytes: maxInFlight,
        deltaCacheBytes: deltaCache,
        syncIntervalMs: syncInterval,
        syncMinIntervalMs: syncMinInterval,
        retry: retry ?? true,
      });
    });

  program.command("failover")
    .description("tell a waiting secondary to activate now")
    .argument("<socket>", "its --control socket")
    .option(
      "--stale",
      "also where the replica is known not to be the VM's last state: it ended, or went on, elsewhere",
      false,
    )
    .addOption(logFormat).addOption(quiet).addOption(progress)
    .addHelpText("after", helpAfter("failover"))
    .action((socket, options) => run("failover", { ...options, socket }));

  program.command("status")
    .description("print how a running end is doing")
    .argument("<socket>", "its --control socket")
    .addOption(json)
    .addOption(new Option("-w, --watch", "print again every second").default(false))
    .addOption(logFormat).addOption(quiet).addOption(progress)
    .addHelpText("after", helpAfter("status"))
    .action((socket, options) => run("status", { ...options, socket }));

  program.command("inspect")
    .description("print what is in a migration stream")
    .argument("<file>", `the stream; "-" reads stdin`)
    .option("--fields", "also print the fields of every device (JSON always has them)", false)
    .addOption(json)
    .addOption(logFormat).addOption(quiet).addOption(progress)
    .addHelpText("after", helpAfter("inspect"))
    .action((file, options) => run("inspect", { ...options, file }));

  program.command("doctor")
    .description("tell whether this host, QEMU and guest can be protected, and in which mode")
    .option("--qmp <socket>", "look at the QEMU behind this monitor: PATH, unix:PATH or HOST:PORT")
    .option("--qemu <path>", "look at this QEMU")
    .addOption(json)
    .addOption(logFormat).addOption(quiet).addOption(progress)
    .addHelpText("after", helpAfter("doctor"))
    .action((options) => run("doctor", options));

  addDrillCommand(program, (options) => run("drill", options));

  addBenchCommands(
    program,
    (options) => run("bench", options),
    (options) => run("benchCompare", options),
  );

  program.command("bench-client", { hidden: true })
    .description("ask the guest of an experiment for pages; not for people")
    .argument("<host>", "the guest")
    .argument("<port>", "its web server")
    .addOption(logFormat).addOption(quiet).addOption(progress)
    .action((host, port, options) => run("benchClient", { ...options, host, port }));

  program.command("drill-client", { hidden: true })
    .description("talk to the guest of a drill; not for people")
    .argument("<host>", "the guest")
    .argument("<port>", "its service")
    .addOption(logFormat).addOption(quiet).addOption(progress)
    .action((host, port, options) => run("drillClient", { ...options, host, port }));

  program.command("guard", { hidden: true })
    .description("outlive kemari protect, and tell QEMU if it was killed; not for people")
    .argument("<qmp>", "QEMU's QMP socket")
    .argument("<action>", "continue or stop")
    .argument("<folder>", "what to remove")
    .addOption(logFormat).addOption(quiet).addOption(progress)
    .action((qmp, action, folder, options) => run("guard", { ...options, qmp, action, folder }));

  return program;
}
