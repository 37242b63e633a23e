/** Which kemari the benchmarks run: the executable if it is as new as the sources. */

/** How to start kemari. */
export interface KemariProgram {
  /** Program and first arguments. */
  readonly command: readonly string[];
  /** For the report's notes. */
  readonly about: string;
}

/** The folder of the sources, or undefined when they are not what runs. */
export function sourceFolder(): string | undefined {
  return /^file:\/\/(.*)\/main\.ts$/.exec(decodeURIComponent(Deno.mainModule))?.[1];
}

/**
 * Finds the executable: this very one, or the one that belongs to the sources that run.
 *
 * @returns Its path and whether it is newer than every source; undefined if there is none.
 */
export function findExecutable(): { path: string; fresh: boolean } | undefined {
  const folder = sourceFolder();
  if (folder === undefined) {
    const own = Deno.build.standalone ? Deno.execPath() : Deno.env.get("KEMARI_EXECUTABLE");
    return own === undefined ? undefined : { path: own, fresh: true };
  }
  const path = `${folder}/dist/kemari`;
  const builtAt = changedAt(path);
  if (builtAt === undefined) return undefined;
  const sources = [`${folder}/main.ts`, ...sourcesBelow(`${folder}/lib`)];
  return { path, fresh: sources.every((source) => (changedAt(source) ?? 0) <= builtAt) };
}

export function kemariProgram(): KemariProgram {
  if (Deno.build.standalone) return { command: [Deno.execPath()], about: "this executable" };
  const executable = sourceFolder() === undefined ? undefined : findExecutable();
  if (executable?.fresh) return { command: [executable.path], about: "dist/kemari" };
  return {
    command: [Deno.execPath(), "run", "-A", decodeURIComponent(new URL(Deno.mainModule).pathname)],
    about: sourceFolder() === undefined
      ? "this executable's program"
      : `main.ts, since dist/kemari is ${executable ? "older than the sources" : "missing"}: ` +
        "deno task compile makes it",
  };
}

function changedAt(path: string): number | undefined {
  try {
    return Deno.statSync(path).mtime?.getTime();
  } catch {
    return undefined;
  }
}

function* sourcesBelow(folder: string): Generator<string> {
  for (const entry of Deno.readDirSync(folder)) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory) yield* sourcesBelow(path);
    else if (entry.name.endsWith(".ts") && !entry.name.endsWith("_test.ts")) yield path;
  }
}
