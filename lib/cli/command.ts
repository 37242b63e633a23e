/** The declaration of a command in its file, and how it becomes part of the grammar. */
import type { Command } from "@commander-js/extra-typings";
import type { CommandContext } from "./command_context.ts";
import { formatTail, type HelpTail } from "./help_tail.ts";
import { logging, type LogOptions } from "./options/logging.ts";
import type { OptionGroup, OptionsOf } from "./options/option_group.ts";

/** A command: its words, its help and its call, in one file. */
interface CommandDeclaration<
  Args extends unknown[],
  Groups extends readonly OptionGroup[],
> {
  readonly name: string;
  /** One line, also for the list of commands. */
  readonly summary: string;
  /** Declares the arguments. */
  readonly arguments?: (command: Command) => Command<Args>;
  /**
   * The option groups, in the order of the help. Every command has the options of `logging` after
   * them.
   */
  readonly groups: Groups;
  /** Absent for commands that kemari itself starts, which no help lists. */
  readonly help?: HelpTail;
  readonly subcommands?: readonly CliCommand[];
  /**
   * Carries the command out. It imports other rooms only then, so that `--help` does not wait for
   * them.
   *
   * @returns The exit code; 0 if undefined.
   */
  readonly run: (
    args: NoInfer<Args>,
    options: NoInfer<OptionsOf<Groups>> & LogOptions,
    context: CommandContext,
  ) => Promise<number | void>;
}

/** A command line that was understood. */
export interface Call {
  /** The command's words: `bench compare`. */
  readonly command: string;
  readonly args: readonly unknown[];
  readonly options: LogOptions;
  /** Carries the command out. @returns The exit code; 0 if undefined. */
  run(context: CommandContext): Promise<number | void>;
}

/** What the grammar needs besides its commands. */
export interface GrammarHost {
  /** Width of the reader's terminal, in characters. */
  width(): number;
  /** Called when a command line has been understood. */
  called(call: Call): Promise<void>;
}

/** A command that can become part of the grammar. */
export interface CliCommand {
  readonly name: string;
  readonly help?: HelpTail;
  readonly subcommands: readonly CliCommand[];
  /** @param parent The words before the command's name: `kemari`, or another command. */
  addTo(parent: Command, host: GrammarHost, words?: readonly string[]): void;
}

/**
 * Declares a command. The types of its arguments and options are inferred from the declarations.
 */
export function defineCommand<
  Args extends unknown[] = [],
  const Groups extends readonly OptionGroup[] = readonly [],
>(declaration: CommandDeclaration<Args, Groups>): CliCommand {
  const { name, summary, help, groups, subcommands = [], run } = declaration;
  return {
    name,
    help,
    subcommands,
    addTo(parent, host, words = []) {
      const path = [...words, name];
      const plain = parent.command(name, { hidden: help === undefined }).description(summary);
      declaration.arguments?.(plain);
      const readers = [...groups, logging].map((group) => group.addTo(plain));
      // Takes the heading of the last group.
      plain.helpOption("-h, --help", "print this help");
      if (help !== undefined) {
        plain.addHelpText("after", () => formatTail(help, host.width()));
      }
      plain.action(async () => {
        const given = plain.opts();
        // Each reader returns its group's declared type, and commander the declared arguments.
        const options = Object.assign({}, ...readers.map((read) => read(given))) as
          & OptionsOf<Groups>
          & LogOptions;
        const args = plain.processedArgs as unknown[] as Args;
        await host.called({
          command: path.join(" "),
          args,
          options,
          run: (context) => run(args, options, context),
        });
      });
      // Otherwise a command would take its subcommand's options for its own.
      if (subcommands.length > 0) plain.enablePositionalOptions();
      for (const subcommand of subcommands) subcommand.addTo(plain, host, path);
    },
  };
}
