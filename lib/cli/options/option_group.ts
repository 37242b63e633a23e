/** Options that belong together: declared once, and shared by the commands that take them. */
import { type Command, Option } from "@commander-js/extra-typings";
import { KemariError, UsageError } from "../../errors.ts";

/** The options of a command line, parsed by commander. */
type Flags = Record<string, unknown>;

/** Options under one heading of a command's help. */
export interface OptionGroup<Options extends object = object> {
  /** Declares the group's options. @returns A function that reads their values from all options. */
  addTo(command: Command): (given: Flags) => Options;
}

/** The options of a list of groups together. */
export type OptionsOf<Groups extends readonly OptionGroup[]> = Groups extends
  readonly [OptionGroup<infer First>, ...infer Rest extends readonly OptionGroup[]]
  ? First & OptionsOf<Rest>
  : unknown;

/**
 * Declares a group.
 *
 * The types of the values are commander's, inferred from the declarations.
 *
 * @param heading The heading in the help; groups with the same heading are listed together.
 * @param declare Adds the options to a command. Called once for each command that takes the group.
 */
export function optionGroup<Given extends Flags>(
  heading: string,
  declare: (command: Command) => Command<[], Given>,
): OptionGroup<Given>;
/**
 * Declares a group whose values are renamed, with their units, or checked together.
 *
 * @param read Gets the values of this group's options. It throws a `UsageError` if they do not fit.
 */
export function optionGroup<Given extends Flags, Options extends object>(
  heading: string,
  declare: (command: Command) => Command<[], Given>,
  read: (given: Given) => Options,
): OptionGroup<Options>;
export function optionGroup<Given extends Flags>(
  heading: string,
  declare: (command: Command) => Command<[], Given>,
  read: (given: Given) => object = (given) => given,
): OptionGroup {
  return {
    addTo(command) {
      const before = command.options.length;
      declare(command.optionsGroup(`${heading}:`));
      const own = new Set(command.options.slice(before).map((option) => option.attributeName()));
      // commander delivers values of the types that it inferred from the declarations.
      return (given) =>
        read(Object.fromEntries(Object.entries(given).filter(([name]) => own.has(name))) as Given);
    },
  };
}

/** An option without a value: `true` if it is given. */
export function flag<Usage extends string>(
  usage: Usage,
  description: string,
): Option<Usage, undefined, boolean> {
  return new Option(usage, description).default(false as boolean);
}

/** An option whose value is one of a few words, with a default. */
export function choice<Usage extends string, const Word extends string>(
  usage: Usage,
  description: string,
  words: readonly Word[],
  standard: NoInfer<Word>,
): Option<Usage, undefined, Word, undefined, false, Word> {
  return new Option(usage, description).choices(words).default(standard);
}

/** An option that may be given several times. */
export function repeatable<Usage extends string>(usage: Usage, description: string) {
  return new Option(usage, `${description} (may be repeated)`)
    .argParser((value: string, before: string[]) => [...before, value])
    .default([] as string[], "none");
}

/** An option whose value is read by `parse`; an error in the value names the option. */
export function parsed<Usage extends string, Value>(
  usage: Usage,
  description: string,
  parse: (text: string) => Value,
): Option<Usage, undefined, undefined, Value> {
  const name = usage.split(" ")[0];
  return new Option(usage, description).argParser((text) => {
    try {
      return parse(text);
    } catch (error) {
      if (!(error instanceof KemariError)) throw error;
      throw new UsageError(`${name}: ${error.message}`, { hint: error.hint });
    }
  });
}
