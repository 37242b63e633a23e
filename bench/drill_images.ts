/** The images of a drill's hosts, and the fence, which keeps what was committed of one. */
import type { ProvisionOptions } from "../fixtures/provision/cache_dir.ts";
import { ensureTool } from "../fixtures/provision/tools.ts";
import { BLOCK_BYTES, LEDGER_BLOCKS, LEDGER_BYTES } from "./drill_ledger.ts";
import { output } from "./drill_process.ts";

/**
 * Makes the hosts' images: empty ones, of which the first has a file system, behind it
 * `ballastBytes` of random data, and room for the ledger.
 */
export async function makeImages(
  paths: readonly string[],
  fileSystemBytes: number,
  ballastBytes: number,
  options: ProvisionOptions & { readonly signal: AbortSignal },
): Promise<void> {
  for (const path of paths) {
    await Deno.writeFile(path, new Uint8Array(0));
    await Deno.truncate(path, fileSystemBytes + ballastBytes + LEDGER_BYTES);
  }
  const mke2fs = await ensureTool("mke2fs", options);
  const blocks = `${fileSystemBytes / BLOCK_BYTES}`;
  const words = ["-q", "-F", "-t", "ext4", "-b", `${BLOCK_BYTES}`, paths[0], blocks];
  await output(mke2fs, words, options.signal);
  if (ballastBytes === 0) return;
  using file = await Deno.open(paths[0], { write: true });
  await file.seek(fileSystemBytes, Deno.SeekMode.Start);
  const chunk = new Uint8Array(65536);
  for (let at = 0; at < ballastBytes; at += chunk.length) {
    await file.write(crypto.getRandomValues(chunk));
  }
}

/**
 * Writes the fence, `FOLDER/fence`. Out of band, as a power switch is: it reaches the primary
 * whatever the cable is like. Behind it the primary is dead and the VM does not run yet: the moment
 * to keep what was committed.
 *
 * @param image The secondary's.
 * @param keep Where its ledger is kept.
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
# One that nobody has waited for yet does nothing any more.
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
