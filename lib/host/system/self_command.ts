/**
 * The command line that starts this very program again, whether it runs from source or packed. The
 * new process logs on the same stderr, and so in the same format.
 *
 * @param args What follows the program's name.
 * @param own The arguments of this process.
 */
export function selfCommand(
  args: readonly string[],
  own: readonly string[] = Deno.args,
): string[] {
  const words = asksForJsonLog(own) ? [...args, "--log-format", "json"] : [...args];
  if (Deno.build.standalone) return [Deno.execPath(), ...words];
  // The packed program consists of JavaScript and its runtime, without a configuration file.
  const packed = Deno.mainModule.endsWith(".ts") ? [] : ["--no-config", "--no-remote", "--quiet"];
  return [Deno.execPath(), "run", "-A", ...packed, Deno.mainModule, ...words];
}

/**
 * Whether a command line asks for JSON on stderr. The line may be one that cannot be parsed: this
 * only looks for the option.
 */
export function asksForJsonLog(args: readonly string[]): boolean {
  const at = args.lastIndexOf("--log-format");
  return args.includes("--log-format=json") || (at >= 0 && args[at + 1] === "json");
}
