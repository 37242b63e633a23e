/**
 * `deno task compile`: makes `dist/kemari`, one executable that needs no Deno and no network.
 *
 * The program is bundled first, workers beside it. Then, in this order of preference:
 * 1. `deno compile`, which has to download a runtime once;
 * 2. where that cannot be reached, an archive that unpacks itself: `.ci/launcher.sh`, the bundle
 *    and the Deno binary that runs this script.
 *
 * `KEMARI_COMPILE=native` or `=archive` insists on one of them.
 */
import { createHash } from "node:crypto";
import manifest from "../deno.json" with { type: "json" };
import launcher from "./launcher.sh" with { type: "text" };

/** Archives are cut into blocks of this size, in bytes, so that `dd` can copy parts of them. */
const BLOCK_BYTES = 65536;

/** How long `deno compile` may take: most of it is the download. */
const NATIVE_TIMEOUT_MS = 60_000;

/** The name under which the bundled program is started. */
const PROGRAM = "kemari.js";

const ROOT = new URL("../", import.meta.url);

interface BundledFile {
  readonly name: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** Says what goes on; stdout stays empty. */
function say(text: string): void {
  console.error(`compile: ${text}`);
}

/** Repository paths of all worker modules; they are started by URL, which bundling cannot follow. */
async function findWorkers(folder = ""): Promise<string[]> {
  const found: string[] = [];
  for await (const entry of Deno.readDir(new URL(folder || ".", ROOT))) {
    const path = folder + entry.name;
    if (entry.isDirectory && /^(lib|bench)\//.test(`${path}/`)) {
      found.push(...await findWorkers(`${path}/`));
    } else if (entry.isFile && folder !== "" && entry.name.endsWith("_worker.ts")) {
      found.push(path);
    }
  }
  return found.sort();
}

function baseName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

/** Bundles one module with everything it imports. */
async function bundle(entry: string, name: string, folder: string): Promise<BundledFile> {
  const file = `${folder}/${name}`;
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["bundle", "--quiet", "--platform", "deno", "--keep-names", "-o", file, entry],
    cwd: ROOT,
    env: { NO_COLOR: "1" },
    stdout: "null",
    stderr: "piped",
  }).output();
  if (!success) throw new Error(`cannot bundle ${entry}:\n${new TextDecoder().decode(stderr)}`);
  const text = (await Deno.readTextFile(file)).replaceAll(
    /new URL\(\s*"([^"]*_worker)\.ts",\s*import\.meta\.url\s*\)/g,
    (_whole, path) => `new URL("./${baseName(path)}.js", import.meta.url)`,
  );
  for (const [, path] of text.matchAll(/new URL\(\s*"(\.[^"]*)",\s*import\.meta\.url\s*\)/g)) {
    if (path.endsWith("_worker.js")) continue;
    throw new Error(
      `${entry} refers to ${path} by import.meta.url, which would be missing from the executable: ` +
        `import it with { type: "text" }, or name it *_worker.ts if it is a worker`,
    );
  }
  await Deno.writeTextFile(file, text);
  return { name, bytes: new TextEncoder().encode(text) };
}

/** The program and its workers, the program last, written to `folder` too. */
async function bundleAll(folder: string): Promise<BundledFile[]> {
  const workers = await findWorkers();
  const names = workers.map((path) => baseName(path).replace(/\.ts$/, ".js"));
  const doubled = names.find((name, index) => names.indexOf(name) !== index);
  if (doubled) throw new Error(`two workers are called ${doubled}: rename one`);
  const files: BundledFile[] = [];
  for (const [index, path] of workers.entries()) {
    files.push(await bundle(path, names[index], folder));
  }
  files.push(await bundle("main.ts", PROGRAM, folder));
  return files;
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** `bytes`, filled up to a whole number of blocks. Line breaks mean nothing to a shell or to JavaScript. */
function padded(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(Math.ceil(bytes.length / BLOCK_BYTES) * BLOCK_BYTES).fill(0x0a);
  whole.set(bytes);
  return whole;
}

/** The text of the launcher with its `@NAMES@` filled in. */
function fillIn(values: Readonly<Record<string, string | number>>): string {
  return launcher.replaceAll(/@([A-Z0-9_]+)@/g, (_whole, name) => {
    if (!Object.hasOwn(values, name)) throw new Error(`launcher.sh asks for an unknown ${name}`);
    return String(values[name]);
  });
}

/**
 * Builds the self-extracting archive.
 *
 * @param files The bundle, the program last.
 * @param runtime The Deno binary.
 * @returns The archive's parts, in order.
 */
export function packArchive(
  files: readonly BundledFile[],
  runtime: Uint8Array<ArrayBuffer>,
): Uint8Array<ArrayBuffer>[] {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  const lines: string[] = [];
  let block = 1; // the launcher has the first one for itself
  for (const file of files) {
    const bytes = padded(file.bytes);
    const blocks = bytes.length / BLOCK_BYTES;
    lines.push(`${file.name} ${block} ${blocks} ${sha256(bytes)}`);
    parts.push(bytes);
    block += blocks;
  }
  const runtimeSha256 = sha256(runtime);
  const header = padded(new TextEncoder().encode(fillIn({
    VERSION: manifest.version,
    RUNTIME_ID: runtimeSha256.slice(0, 16),
    RUNTIME_BLOCK: block,
    RUNTIME_BYTES: runtime.length,
    RUNTIME_SHA256: runtimeSha256,
    PROGRAM_ID: sha256(new TextEncoder().encode(lines.join("\n"))).slice(0, 16),
    PROGRAM_FILES: lines.join("\n"),
    NEEDED_MB: Math.ceil(runtime.length / 1e6) + 5,
  })));
  if (header.length !== BLOCK_BYTES) throw new Error("launcher.sh has outgrown its block");
  return [header, ...parts, runtime];
}

/** Writes `parts` as an executable that appears under its name only when it is complete. */
async function writeExecutable(path: URL, parts: readonly Uint8Array[]): Promise<void> {
  const unfinished = new URL(`${path.href}.tmp`);
  const file = await Deno.open(unfinished, { write: true, create: true, truncate: true });
  try {
    for (const part of parts) {
      for (let done = 0; done < part.length;) done += await file.write(part.subarray(done));
    }
  } finally {
    file.close();
  }
  await Deno.chmod(unfinished, 0o755);
  await Deno.rename(unfinished, path);
}

/** Whether the executable answers as it should. */
async function answers(path: URL): Promise<boolean> {
  const { success, stdout } = await new Deno.Command(path, { args: ["--version"] }).output();
  return success && new TextDecoder().decode(stdout) === `kemari ${manifest.version}\n`;
}

/**
 * Tries `deno compile`.
 *
 * @returns Why it did not work; `undefined` if it did.
 */
async function compileNative(
  target: URL,
  folder: string,
  files: readonly BundledFile[],
): Promise<string | undefined> {
  const unfinished = new URL(`${target.href}.tmp`);
  const includes = files.slice(0, -1).flatMap((file) => ["--include", file.name]);
  const signal = AbortSignal.timeout(NATIVE_TIMEOUT_MS);
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["compile", "-A", "--no-check", "--no-config", "--no-lock", "--no-npm", ...includes]
      .concat("--output", decodeURIComponent(unfinished.pathname), PROGRAM),
    cwd: folder,
    env: { NO_COLOR: "1" },
    stdin: "null",
    stdout: "null",
    stderr: "piped",
    signal,
  }).output();
  if (signal.aborted) return `no runtime after ${NATIVE_TIMEOUT_MS / 1000} s`;
  if (!success) {
    const lines = new TextDecoder().decode(stderr).split("\n").map((line) => line.trim());
    // The innermost cause stands last in the numbered list.
    return lines.findLast((line) => /^(error|\d+): (?!<)/.test(line)) ?? "failed";
  }
  if (!await answers(unfinished)) return "the compiled file does not answer";
  await Deno.rename(unfinished, target);
}

async function compile(): Promise<void> {
  const startedMs = performance.now();
  const wanted = Deno.env.get("KEMARI_COMPILE") ?? "auto";
  const target = new URL("dist/kemari", ROOT);
  await Deno.mkdir(new URL(".", target), { recursive: true });
  const folder = await Deno.makeTempDir({ prefix: "kemari-compile-" });
  try {
    const files = await bundleAll(folder);
    const sizes = files.map((file) => `${file.name} ${Math.ceil(file.bytes.length / 1024)} KiB`);
    say(`bundled ${sizes.join(", ")}`);
    const why = wanted === "archive" ? "as asked for" : await compileNative(target, folder, files);
    if (why !== undefined) {
      if (wanted === "native") throw new Error(`deno compile: ${why}`);
      say(`making a self-extracting file (deno compile: ${why})`);
      const runtime = await Deno.readFile(Deno.execPath());
      await writeExecutable(target, packArchive(files, runtime));
      if (!await answers(target)) throw new Error("dist/kemari does not answer");
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
    await Deno.remove(new URL(`${target.href}.tmp`)).catch(() => {});
  }
  const { size } = await Deno.stat(target);
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
  say(`dist/kemari, ${Math.round(size / 1e6)} MB, in ${seconds} s`);
}

if (import.meta.main) {
  try {
    await compile();
  } catch (error) {
    say(error instanceof Error ? error.message : String(error));
    Deno.exit(1);
  }
}
