/**
 * Records the streams in `fixtures/streams/`: `deno run -A lib/lab/recording/record.ts [NAME…]`.
 *
 * Without names, whatever is missing. Recordings differ from run to run (clocks, timing), so a
 * new one comes with a new checksum in `index.json` and a new page beside it.
 */

import { createHash } from "node:crypto";
import { constants, zstdCompressSync } from "node:zlib";
import { UsageError } from "../../errors.ts";
import { QmpClient } from "../../host/vm/qmp_client.ts";
import { waitForPath } from "../provision/cache_dir.ts";
import { ensureQemu } from "../provision/qemu.ts";
import { type Capture, capture } from "./capture.ts";
import { dirtyingBootSector } from "./boot_sector.ts";
import { type Recording, RECORDINGS } from "./recordings.ts";
import type { StoredBytes, StreamInfo } from "./streams.ts";
import { delay } from "../../host/system/delay.ts";

const FOLDER = new URL("../../../fixtures/streams/", import.meta.url);
const BOOT_MS = 2500;
const DISK_BYTES = 1 << 20;

async function record(recording: Recording): Promise<StreamInfo> {
  const say = (line: string) => console.error(`${recording.name}: ${line}`);
  const qemu = await ensureQemu(recording.qemu, { onProgress: say });
  const folder = await Deno.makeTempDir({ prefix: "kemari-record-" });
  const disk = new Uint8Array(DISK_BYTES);
  disk.set(dirtyingBootSector());
  await Deno.writeFile(`${folder}/disk`, disk);
  const args = recording.args.map((arg) =>
    arg.replace("DISK", `${folder}/disk`).replace("RAMFILE", `${folder}/ram`)
  );
  const process = new Deno.Command(qemu.program, {
    args: [
      ...args,
      "-accel",
      "tcg",
      "-display",
      "none",
      "-qmp",
      `unix:${folder}/qmp,server=on,wait=off`,
    ],
    stdin: "null",
    stdout: "null",
    stderr: "inherit",
  }).spawn();
  try {
    await waitForPath(`${folder}/qmp`);
    await delay(BOOT_MS);
    await using qmp = await QmpClient.connect(`${folder}/qmp`);
    await qmp.runAll(recording.before ?? []);
    const listener = Deno.listen({ transport: "unix", path: `${folder}/stream` });
    const taken = capture(listener, {
      kind: recording.kind,
      returnPath: recording.capabilities?.includes("return-path") ?? false,
      maxCheckpoints: recording.checkpoints ?? 0,
      timeoutMs: 20_000,
    });
    await qmp.execute("migrate-set-capabilities", {
      capabilities: (recording.capabilities ?? []).map((name) => ({
        capability: name,
        state: true,
      })),
    });
    await qmp.execute("migrate-set-parameters", {
      "max-bandwidth": 10_000_000_000,
      ...recording.parameters,
    });
    await qmp.execute("migrate", { uri: `unix:${folder}/stream` });
    if (recording.finally) {
      await delay(recording.finally.slowMs);
      await qmp.execute("migrate-set-parameters", recording.finally.parameters);
    }
    const result = await taken;
    listener.close();
    say(`${result.fromQemu.length} bytes, ${result.checkpoints} checkpoints`);
    return await store(recording, qemu.fullVersion, result);
  } finally {
    process.kill("SIGKILL");
    await process.status;
    await Deno.remove(folder, { recursive: true });
  }
}

async function store(
  recording: Recording,
  fullVersion: string,
  result: Capture,
): Promise<StreamInfo> {
  const both = result.fromKemari.length > 0;
  const info: StreamInfo = {
    name: recording.name,
    kind: recording.kind,
    qemu: fullVersion,
    about: recording.about,
    commandLine: ["qemu-system-x86_64", "-accel", "tcg", "-display", "none", ...recording.args],
    capabilities: recording.capabilities ?? [],
    ...(recording.kind === "colo" ? { checkpoints: result.checkpoints } : {}),
    fromQemu: await pack(`${recording.name}.from-qemu.zst`, result.fromQemu),
    ...(both
      ? {
        fromKemari: await pack(`${recording.name}.from-kemari.zst`, result.fromKemari),
        turns: result.turns,
      }
      : {}),
  };
  await Deno.writeTextFile(new URL(`${recording.name}.md`, FOLDER), describe(info));
  return info;
}

async function pack(file: string, raw: Uint8Array): Promise<StoredBytes> {
  const packed = zstdCompressSync(raw, { params: { [constants.ZSTD_c_compressionLevel]: 19 } });
  await Deno.writeFile(new URL(file, FOLDER), packed);
  const sha256 = createHash("sha256").update(raw).digest("hex");
  return { file, lengthBytes: raw.length, sha256 };
}

function describe(info: StreamInfo): string {
  const lines = [
    `# ${info.name}`,
    "",
    `${info.about[0].toUpperCase()}${info.about.slice(1)}.`,
    "",
    `- QEMU ${info.qemu} (Debian), TCG`,
    `- command line: \`${info.commandLine.join(" ")}\``,
    `- migration capabilities: ${info.capabilities.join(", ") || "none"}`,
  ];
  if (info.checkpoints !== undefined) lines.push(`- checkpoints: ${info.checkpoints}`);
  for (const stored of [info.fromQemu, info.fromKemari]) {
    if (!stored) continue;
    lines.push(`- \`${stored.file}\`: ${stored.lengthBytes} bytes, SHA-256 ${stored.sha256}`);
  }
  lines.push(
    "- recorded by `lib/lab/recording/record.ts`; `index.json` holds the same and the turns",
    "",
  );
  return lines.join("\n");
}

async function readIndex(): Promise<StreamInfo[]> {
  try {
    return JSON.parse(await Deno.readTextFile(new URL("index.json", FOLDER)));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

if (import.meta.main) {
  const index = await readIndex();
  for (const name of Deno.args) {
    if (!RECORDINGS.some((each) => each.name === name)) {
      throw new UsageError(`no recording is called ${name}`);
    }
  }
  for (const recording of RECORDINGS) {
    const known = index.findIndex((info) => info.name === recording.name);
    const wanted = Deno.args.length > 0 ? Deno.args.includes(recording.name) : known < 0;
    if (!wanted) continue;
    const info = await record(recording);
    if (known >= 0) index.splice(known, 1);
    index.push(info);
    index.sort((a, b) => (a.name < b.name ? -1 : 1));
    await Deno.writeTextFile(new URL("index.json", FOLDER), JSON.stringify(index, null, 1) + "\n");
  }
}
