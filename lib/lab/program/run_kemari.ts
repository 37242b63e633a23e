/** For tests: kemari run from source, as a script sees it. */

/** How a run ended. */
interface KemariResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** What a run gets besides its arguments. */
interface KemariInput {
  /** Written to its stdin, which is then closed; without it stdin is empty. */
  readonly stdin?: Uint8Array;
  readonly env?: Readonly<Record<string, string>>;
}

/** Starts kemari with all three streams piped. The caller ends it, or awaits its end. */
export function spawnKemari(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Deno.ChildProcess {
  const main = new URL("../../../main.ts", import.meta.url).pathname;
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", "--no-check", main, ...args],
    env: { NO_COLOR: "1", ...env },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

/** Runs kemari to its end. */
export async function runKemari(
  args: readonly string[],
  input: KemariInput = {},
): Promise<KemariResult> {
  const child = spawnKemari(args, input.env);
  const writing = feed(child.stdin, input.stdin);
  const { code, stdout, stderr } = await child.output();
  await writing;
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

/** A program that ends without reading all of its stdin does no wrong by it. */
async function feed(stdin: WritableStream<Uint8Array>, bytes: Uint8Array | undefined) {
  const writer = stdin.getWriter();
  try {
    if (bytes !== undefined) await writer.write(bytes);
    await writer.close();
  } catch (error) {
    if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
  }
}
