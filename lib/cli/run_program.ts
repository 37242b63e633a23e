/** Parses the command line, and runs the command. */
import { Command, CommanderError, Help } from "@commander-js/extra-typings";
import { EXIT, UsageError } from "../errors.ts";
import type { Call, GrammarHost } from "./command.ts";
import { COMMANDS } from "./command_list.ts";
import type { CommandContext, ProcessIo } from "./command_context.ts";
import { formatTail, type HelpTail } from "./help_tail.ts";
import type { LogOptions } from "./options/logging.ts";
import { StatusLine, type StatusMode } from "./status_line.ts";

/** The widest help, in columns: longer lines are hard to read. */
const MAX_HELP_WIDTH = 100;

/** Carries out a parsed command line; tests replace this function. */
type CarryOut = (call: Call, context: CommandContext) => Promise<number | void>;

/** The mode of the status line for `--log-format`, `--quiet` and `--progress`. */
function statusMode(options: LogOptions, isTerminal: boolean): StatusMode {
  if (options.logFormat === "json" || options.progress === "never") return "off";
  if (options.progress === "always") return isTerminal ? "redraw" : "lines";
  return isTerminal && !options.quiet ? "redraw" : "off";
}

/** Sets up logging, runs a command and leaves the terminal clean. @returns The exit code. */
async function runCommand(call: Call, io: ProcessIo, carryOut: CarryOut): Promise<number> {
  const { configureLog } = await import("./configure_log.ts");
  const status = new StatusLine(io.stderr, statusMode(call.options, io.stderr.isTerminal));
  await configureLog(call.options, (line) => status.print(line));
  const writeOut = (text: string) => {
    status.hide(); // stdout may be the same terminal
    io.writeOut(text);
  };
  try {
    return await carryOut(call, { ...io, writeOut, status }) ?? EXIT.done;
  } finally {
    status.clear();
  }
}

/** Rewrites commander's error message in kemari's form. */
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
  carryOut: CarryOut = (call, context) => call.run(context),
): Promise<number> {
  let exitCode: number = EXIT.done;
  const host: GrammarHost = {
    width: () => Math.min(MAX_HELP_WIDTH, io.stderr.columns()),
    called: async (call) => {
      exitCode = await runCommand(call, io, carryOut);
    },
  };
  try {
    await createProgram(version, io, host).parseAsync(args, { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return EXIT.done;
    // commander prints the help and throws this if the command is missing.
    if (error.code === "commander.help") return EXIT.usage;
    throw usageErrorOf(error);
  }
  return exitCode;
}

/** Builds the grammar. Errors and exits are thrown, never carried out. */
function createProgram(version: string, io: ProcessIo, host: GrammarHost): Command {
  const program = new Command("kemari")
    .description("Keeps a running VM alive through the death of its host. Stock QEMU, two ends.")
    .version(`kemari ${version}`, "-V, --version", "print the version")
    .helpOption("-h, --help", "print this help")
    .helpCommand("help [command]", "print the help of a command")
    // Otherwise a command would take its own subcommand's options for its own.
    .enablePositionalOptions()
    .configureOutput({
      writeOut: (text) => io.writeOut(text),
      writeErr: (text) => io.stderr.write(text),
      outputError: () => {},
      getOutHelpWidth: host.width,
      getErrHelpWidth: host.width,
      getOutHasColors: () => false,
      getErrHasColors: () => false,
    })
    .configureHelp({
      minWidthToWrap: 20,
      // Leaves out "(default: false)": every flag is off unless it is given.
      optionDescription(option) {
        return option.defaultValue === false
          ? option.description
          : Help.prototype.optionDescription.call(this, option);
      },
    })
    .exitOverride((error) => {
      throw error;
    })
    .addHelpText("after", () => formatTail(PROGRAM_HELP, host.width()));
  for (const command of COMMANDS) command.addTo(program, host);
  return program;
}

/** The text below the list of commands. */
const PROGRAM_HELP: HelpTail = {
  examples: [
    "secondary$ kemari recv 0.0.0.0:4000 --control /run/kemari.ctl | \\\n" +
    "    qemu-system-x86_64 … -incoming fd:0",
    "primary$   kemari protect ssh:secondary --qmp /run/vm/qmp.sock",
  ],
  notes: [{
    title: "More",
    parts: [
      "kemari COMMAND --help explains a command, with examples and its exit status.",
    ],
  }],
  exits: {
    done: "done",
    bytes: "the bytes of a stream or a peer are at fault",
    connection: "a connection, file or process failed",
    qemu: "QEMU refused, or cannot do it",
  },
};
