/**
 * The command line that starts this very program again, whether it runs from source or packed.
 *
 * @param args What follows the program's name.
 */
export function selfCommand(args: readonly string[]): string[] {
  if (Deno.build.standalone) return [Deno.execPath(), ...args];
  // The packed program is JavaScript beside its runtime, far from any configuration.
  const packed = Deno.mainModule.endsWith(".ts") ? [] : ["--no-config", "--no-remote", "--quiet"];
  return [Deno.execPath(), "run", "-A", ...packed, Deno.mainModule, ...args];
}
