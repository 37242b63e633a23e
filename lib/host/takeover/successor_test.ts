import assert from "node:assert/strict";

/** A device that no other process on the machine is likely to have open. */
const DEVICE = "/dev/zero";

/** What a process finds whose stdout is that device, and who lets `pid` end as soon as it has looked. */
async function fateBeside(pid: number): Promise<string> {
  const module = new URL("./successor.ts", import.meta.url).href;
  const script = `import { Successor } from "${module}";
    const successor = Successor.ofStdout();
    Deno.kill(${pid}, "SIGKILL");
    const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    console.error(await successor.fate(() => undefined, sleep));`;
  const { stderr } = await new Deno.Command("/bin/sh", {
    args: ["-c", `exec "$0" eval --no-lock "$1" >${DEVICE}`, Deno.execPath(), script],
    stderr: "piped",
  }).output();
  return new TextDecoder().decode(stderr).trim();
}

Deno.test("a process that has the device open that our stdout is has not taken the VM's state", async () => {
  // Like a QEMU on the machine that was started with -incoming.
  const bystander = new Deno.Command("/bin/sh", {
    args: ["-c", `exec >${DEVICE}; echo; read word`, "sh", "-incoming", "defer"],
    stdin: "piped",
  }).spawn();
  try {
    assert.equal(await fateBeside(bystander.pid), "loaded");
  } finally {
    await bystander.stdin.close().catch(() => {});
    await bystander.status;
  }
});
