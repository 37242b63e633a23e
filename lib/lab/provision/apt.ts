/**
 * Debian packages without root and without touching the system's own packages: apt with every one
 * of its folders redirected. Apt checks the archive's signature and each package's SHA-256.
 */

import { createHash } from "node:crypto";
import { InterruptedError, TransportError, UsageError } from "../../errors.ts";
import { exists, findProgram, type ProvisionOptions } from "./cache_dir.ts";
import { delay } from "../../host/system/delay.ts";

const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";

/** For a full disk. */
export const ROOM_HINT = "make room, or set XDG_CACHE_HOME to a folder on another disk, then run " +
  "the setup again: it goes on where it stopped";

/** Packages that are wanted together, and where from. */
export interface PackageSet {
  /** Suites to read, such as `trixie`; `-t` is the last one. */
  readonly suites: readonly string[];
  readonly components: readonly string[];
  readonly packages: readonly string[];
  /** Packages that count as installed, so that they and what they depend on are left out. */
  readonly assumed?: readonly string[];
}

/** One package file as the archive's index describes it. */
interface PackageFile {
  readonly name: string;
  readonly lengthBytes: number;
  readonly sha256: string;
}

/**
 * Reads the lines of `apt-get --print-uris`: `'URI' file size SHA256:hash`.
 *
 * @throws {TransportError} If a line carries no SHA-256.
 */
export function decodePrintUris(text: string): PackageFile[] {
  const files: PackageFile[] = [];
  for (const line of text.split("\n")) {
    if (!line.startsWith("'")) continue;
    const match = /^'([^']+)' (\S+) (\d+) SHA256:([0-9a-f]{64})$/.exec(line.trim());
    if (!match) throw new TransportError("apt-get", "read", `no SHA-256 in its answer: ${line}`);
    files.push({ name: match[2], lengthBytes: Number(match[3]), sha256: match[4] });
  }
  return files;
}

/**
 * Finds the Debian archive in the text of an apt sources file, in either of its two formats.
 *
 * @returns The URI, or `undefined` if the file names none. Security and third-party archives do not count.
 */
export function findMirror(sources: string): string | undefined {
  for (const line of sources.split("\n")) {
    const match = /^\s*(?:URIs:|deb\s+(?:\[[^\]]*\]\s*)?)\s*(\S+)/.exec(line);
    if (match && /\/debian\/?$/.test(match[1])) return match[1].replace(/\/$/, "");
  }
  return undefined;
}

/**
 * The Debian mirror to use: the environment's, else the system's own.
 *
 * @throws {UsageError} If neither names one.
 */
async function debianMirror(): Promise<string> {
  const chosen = Deno.env.get("KEMARI_DEBIAN_MIRROR");
  if (chosen) return chosen;
  const files = ["/etc/apt/sources.list"];
  try {
    for await (const entry of Deno.readDir("/etc/apt/sources.list.d")) {
      if (/\.(list|sources)$/.test(entry.name)) files.push(`/etc/apt/sources.list.d/${entry.name}`);
    }
  } catch { /* Not a Debian system, or not readable. */ }
  for (const file of files.sort()) {
    const text = await Deno.readTextFile(file).catch(() => "");
    const mirror = findMirror(text);
    if (mirror) return mirror;
  }
  throw new UsageError("no Debian mirror: /etc/apt names none", {
    hint: "set KEMARI_DEBIAN_MIRROR to the URL of one",
  });
}

/**
 * Checks that this host can fetch Debian packages.
 *
 * @throws {UsageError} That names each part that is missing.
 */
export async function requireDebianTools(): Promise<void> {
  const missing: string[] = [];
  for (const tool of ["apt-get", "dpkg-deb"]) {
    if (!await findProgram(tool)) missing.push(`the program ${tool}`);
  }
  if (!await exists(KEYRING)) missing.push(`the keyring ${KEYRING}`);
  if (Deno.build.arch !== "x86_64") {
    missing.push(`an x86_64 processor (this is ${Deno.build.arch})`);
  }
  if (missing.length > 0) {
    throw new UsageError(`QEMU cannot be provisioned here: missing ${missing.join(", ")}`, {
      hint: "on Debian or a derivative install debian-archive-keyring; elsewhere install QEMU " +
        "yourself and set KEMARI_QEMU=/path/to/qemu-system-x86_64",
    });
  }
}

/** A private apt for one list of suites: its lists and downloads live in `folder`. */
export class AptArchive {
  readonly archivesDir: string;

  constructor(
    readonly folder: string,
    private readonly set: PackageSet,
    private readonly options: ProvisionOptions,
  ) {
    this.archivesDir = `${folder}/archives`;
  }

  /** Fetches the indexes, then says which package files the set needs. */
  async resolve(): Promise<PackageFile[]> {
    await this.writeConfiguration();
    await this.apt(["-o", "APT::Update::Error-Mode=any", "update"]);
    // Files already downloaded are left out of the answer; an empty folder gives the whole list.
    const listing = await this.apt([
      "-o",
      `Dir::Cache::archives=${this.folder}/empty/`,
      "--print-uris",
      "-y",
      ...this.installArguments(),
    ]);
    const files = decodePrintUris(listing);
    if (files.length === 0) {
      throw new TransportError("apt-get", "read", "it names no package to download");
    }
    return files;
  }

  /** Downloads what is missing of `files`, then checks the SHA-256 of each. */
  async download(files: readonly PackageFile[]): Promise<void> {
    const totalBytes = files.reduce((sum, file) => sum + file.lengthBytes, 0);
    const report = async () => {
      let count = 0;
      let doneBytes = 0;
      for (const file of files) {
        const done = await sizeOf(`${this.archivesDir}/${file.name}`);
        if (done !== undefined) count++;
        doneBytes += done ?? await sizeOf(`${this.archivesDir}/partial/${file.name}`) ?? 0;
      }
      this.options.onProgress?.(
        `downloading: ${count} of ${files.length} packages, ${megabytes(doneBytes)} of ` +
          `${megabytes(totalBytes)} MB`,
      );
    };
    await report();
    const timer = setInterval(() => void report().catch(() => {}), 1000);
    try {
      await this.apt(["-y", "--download-only", ...this.installArguments()]);
    } finally {
      clearInterval(timer);
    }
    await report();
    for (const file of files) {
      const path = `${this.archivesDir}/${file.name}`;
      const sha256 = createHash("sha256").update(await Deno.readFile(path)).digest("hex");
      if (sha256 !== file.sha256) {
        await Deno.remove(path);
        throw new TransportError(path, "read", "its SHA-256 is not the archive's", {
          hint: "the file was removed: run the setup again",
        });
      }
    }
  }

  private installArguments(): string[] {
    return ["-t", this.set.suites.at(-1)!, "install", ...this.set.packages];
  }

  private async writeConfiguration(): Promise<void> {
    for (const part of ["lists/partial", "archives/partial", "empty/partial", "etc/parts"]) {
      await Deno.mkdir(`${this.folder}/${part}`, { recursive: true });
    }
    const mirror = await debianMirror();
    const components = this.set.components.join(" ");
    await Deno.writeTextFile(
      `${this.folder}/etc/sources.list`,
      this.set.suites.map((suite) =>
        `deb [arch=amd64 signed-by=${KEYRING}] ${mirror} ${suite} ${components}\n`
      ).join(""),
    );
    await Deno.writeTextFile(
      `${this.folder}/status`,
      (this.set.assumed ?? []).map((name) =>
        `Package: ${name}\nStatus: install ok installed\nVersion: 999\nArchitecture: all\n` +
        `Maintainer: none\nDescription: assumed\n\n`
      ).join(""),
    );
  }

  /** Runs apt-get in the redirected folders and returns its stdout. */
  private async apt(args: readonly string[]): Promise<string> {
    const settings = [
      `Dir::Etc::sourcelist=${this.folder}/etc/sources.list`,
      `Dir::Etc::sourceparts=${this.folder}/etc/parts`,
      `Dir::Etc::preferences=${this.folder}/etc/preferences`,
      `Dir::Etc::preferencesparts=${this.folder}/etc/parts`,
      `Dir::State=${this.folder}`,
      `Dir::State::lists=${this.folder}/lists/`,
      `Dir::State::status=${this.folder}/status`,
      `Dir::Cache=${this.folder}`,
      `Dir::Cache::archives=${this.folder}/archives/`,
      "APT::Architecture=amd64",
      "APT::Architectures=amd64",
      "APT::Sandbox::User=",
      "APT::Install-Recommends=false",
      "APT::Get::List-Cleanup=false",
      // Maintainers' hooks of the host's own apt (reports, update notifiers) must not run.
      "APT::Update::Post-Invoke-Success=",
      "APT::Update::Post-Invoke=",
      "DPkg::Post-Invoke=",
      "Acquire::ForceHash=SHA256",
      "Acquire::Languages=none",
      "Acquire::Retries=2",
      "Acquire::http::Timeout=20",
    ].flatMap((setting) => ["-o", setting]);
    // An apt-get of an earlier run whose parent was killed may still hold apt's own lock.
    const deadlineMs = Date.now() + 60_000;
    while (true) {
      const result = await runTool("apt-get", ["-q", ...settings, ...args], this.options);
      if (result.code === 0) return result.stdout;
      if (/Could not get lock/.test(result.stderr) && Date.now() < deadlineMs) {
        this.options.onProgress?.("waiting for an apt-get of an earlier run");
        await delay(500);
        continue;
      }
      const reason = result.stderr.split("\n").filter((line) => /^[EW]:/.test(line)).slice(0, 3);
      throw new TransportError(
        "apt-get",
        "read",
        `exit ${result.code}: ${reason.join(" ") || result.stderr.slice(-300)}`,
        {
          hint: /free space|No space left/.test(result.stderr)
            ? ROOM_HINT
            : `check that ${await debianMirror()} can be reached (KEMARI_DEBIAN_MIRROR=URI ` +
              "names another mirror), then run the setup again: it goes on where it stopped",
        },
      );
    }
  }
}

/** What a finished child process left. */
interface ToolResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs a program to its end with the C locale.
 *
 * @throws {TransportError} If it cannot be started. @throws {InterruptedError} If aborted.
 */
export async function runTool(
  program: string,
  args: readonly string[],
  options: ProvisionOptions = {},
): Promise<ToolResult> {
  let output: Deno.CommandOutput;
  try {
    output = await new Deno.Command(program, {
      args: [...args],
      env: { LC_ALL: "C", DEBIAN_FRONTEND: "noninteractive" },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
      signal: options.signal,
    }).output();
  } catch (cause) {
    if (options.signal?.aborted) throw new InterruptedError("interrupted", { cause });
    throw new TransportError(program, "spawn", "it cannot be started", { cause });
  }
  if (options.signal?.aborted) {
    throw new InterruptedError("interrupted", {
      hint: "run it again: it goes on where it stopped",
    });
  }
  const text = new TextDecoder();
  return {
    code: output.code,
    stdout: text.decode(output.stdout),
    stderr: text.decode(output.stderr),
  };
}

async function sizeOf(path: string): Promise<number | undefined> {
  return await Deno.stat(path).then((info) => info.size, () => undefined);
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}
