/** The images of a drill's hosts, and the fence, which saves the committed ledger of an image. */
import type { ProvisionOptions } from "../lab/provision/cache_dir.ts";
import { ensureTool } from "../lab/provision/tools.ts";
import { BLOCK_BYTES, LEDGER_BLOCKS, LEDGER_BYTES } from "./ledger.ts";
import type { Fault } from "./plan.ts";
import { output } from "../lab/program/lab_process.ts";

/** Contents of an image: a file system, then random data, then room for the ledger. */
export interface ImageLayout {
  readonly fileSystemBytes: number;
  readonly ballastBytes: number;
}

const MIB = 2 ** 20;
const FILE_SYSTEM_BYTES = 60 * MIB;
/** Random data that makes a first copy last long enough to be interrupted. */
const BALLAST_BYTES = 128 * MIB;

export function imageLayout(fault: Fault): ImageLayout {
  return {
    fileSystemBytes: FILE_SYSTEM_BYTES,
    ballastBytes: fault === "copy" ? BALLAST_BYTES : 0,
  };
}

/** Makes an empty image. */
export async function makeEmptyImage(path: string, layout: ImageLayout): Promise<void> {
  await Deno.writeFile(path, new Uint8Array(0));
  await Deno.truncate(path, layout.fileSystemBytes + layout.ballastBytes + LEDGER_BYTES);
}

/** Makes an image with its file system and ballast. */
export async function makeImage(
  path: string,
  layout: ImageLayout,
  options: ProvisionOptions & { readonly signal: AbortSignal },
): Promise<void> {
  const { fileSystemBytes, ballastBytes } = layout;
  await makeEmptyImage(path, layout);
  const mke2fs = await ensureTool("mke2fs", options);
  const blocks = `${fileSystemBytes / BLOCK_BYTES}`;
  const words = ["-q", "-F", "-t", "ext4", "-b", `${BLOCK_BYTES}`, path, blocks];
  await output(mke2fs, words, options.signal);
  if (ballastBytes === 0) return;
  using file = await Deno.open(path, { write: true });
  await file.seek(fileSystemBytes, Deno.SeekMode.Start);
  const chunk = new Uint8Array(65536);
  for (let at = 0; at < ballastBytes; at += chunk.length) {
    await file.write(crypto.getRandomValues(chunk));
  }
}

/** Copies an image; holes stay holes. */
export async function copyImage(from: string, to: string, signal: AbortSignal): Promise<void> {
  await output("cp", ["--sparse=always", from, to], signal);
}

/**
 * Writes the fence, `FOLDER/fence`. It works out of band, like a power switch: it reaches the
 * primary even if the cable is cut. When it has run, the primary is dead and the VM does not run
 * yet: the moment to save the committed ledger.
 *
 * @param image The secondary's.
 * @param keep Where the copy of the ledger goes.
 */
export async function writeFence(
  folder: string,
  image: string,
  ledgerOffset: number,
  keep: string,
): Promise<void> {
  await Deno.writeTextFile(
    `${folder}/fence`,
    `#!/bin/sh
[ -e '${folder}/fence.over' ] && exit 1
touch '${folder}/fence.asked'
# A zombie does nothing any more.
is_alive() {
  { read -r _ _ state _ < /proc/$1/stat; } 2>/dev/null && [ "$state" != Z ]
}
while [ -e '${folder}/fence.hold' ]; do sleep 0.02; done
for pid in $(cat '${folder}/fence.pids'); do
  kill -9 $pid 2>/dev/null
  while is_alive $pid; do sleep 0.002; done
done
dd if='${image}' of='${keep}' bs=${BLOCK_BYTES} skip=${ledgerOffset / BLOCK_BYTES} \\
  count=${LEDGER_BLOCKS} 2>/dev/null
`,
    { mode: 0o755 },
  );
}
