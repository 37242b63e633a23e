/** The key that ssh brings for a session is seen by nobody else, and is good for one session. */
import assert from "node:assert/strict";
import { loadStream } from "../lab/recording/streams.ts";
import { KemariProcess } from "../lab/program/kemari_process.ts";
import { runKemari } from "../lab/program/run_kemari.ts";
import { until } from "../lab/program/until.ts";
import { SshHost } from "../lab/testing/ssh_host.ts";

const STREAM = loadStream("plain-7.2-bios");

/** Every form in which 32 bytes may be written down. */
function formsOf(hex: string): string[] {
  const bytes = Uint8Array.from(hex.match(/../g)!, (byte) => parseInt(byte, 16));
  return [hex, hex.toUpperCase(), bytes.toBase64().replace(/=+$/, "")];
}

/** Of which processes others can see this in their arguments or environment. */
function processesThatShow(forms: readonly string[]): string[] {
  return [...Deno.readDirSync("/proc")].filter(({ name }) => /^\d+$/.test(name)).flatMap(
    ({ name }) =>
      ["cmdline", "environ"].filter((file) => {
        try {
          const text = Deno.readTextFileSync(`/proc/${name}/${file}`);
          return forms.some((form) => text.includes(form));
        } catch {
          return false;
        }
      }).map((file) => `${file} of ${name}`),
  );
}

/**
 * An ssh that notes in the file `said` what it is given on its stdin: the only way to get to know a key.
 *
 * @returns What `--ssh` is given.
 */
async function spyOn(host: SshHost): Promise<string> {
  const { folder, ssh } = host;
  await Deno.writeTextFile(`${folder}/said`, "");
  await host.script(
    "spy",
    `case "$1" in -G) exec ${ssh} "$@" ;; esac\ntee -a ${folder}/said | ${ssh} "$@"`,
  );
  return `${folder}/spy`;
}

Deno.test("a session's key is in no argument, environment, log or status, and is used up by its session", async () => {
  await using host = await SshHost.open();
  const { folder } = host;
  const spy = await spyOn(host);
  await using recv = new KemariProcess(["recv", "0.0.0.0:0", "--control", `${folder}/ctl`]);
  const address = await recv.listening();
  recv.signal("SIGSTOP");
  await using sender = new KemariProcess(
    ["send", `ssh:far:${folder}/ctl`, "--ssh", spy, "--control", `${folder}/ctl2`],
    { stdin: "piped" },
  );
  let said = "";
  await until(() => {
    said = Deno.readTextFileSync(`${folder}/said`);
    return said.endsWith("\n");
  }, "the key");
  const { way, identity, key } = JSON.parse(said);
  assert.equal(way, "direct");
  assert.match(key, /^[0-9a-f]{64}$/);
  const forms = formsOf(key);
  const isAttaching = () => host.processes.some((line) => line.includes(" attach "));
  await until(isAttaching, "kemari attach");
  assert.deepEqual(processesThatShow(forms), [], "while ssh brings it");
  recv.signal("SIGCONT");

  await recv.waitFor(/sender connected/);
  assert.deepEqual(processesThatShow(forms), [], "while the session goes on");
  const statuses = [];
  for (const control of ["ctl", "ctl2"]) {
    const { code, stdout, stderr } = await runKemari(["status", `${folder}/${control}`, "--json"]);
    assert.equal(code, 0, stderr);
    assert.ok(stdout.includes(identity), "the status says which key it is");
    statuses.push(stdout);
  }
  await Deno.writeTextFile(`${folder}/used`, `${identity}:${key}\n`, { mode: 0o600 });
  const replay = await runKemari(["send", address, "--key", `${folder}/used`], { stdin: STREAM });
  assert.equal(replay.code, 4, replay.stderr);
  assert.match(replay.stderr, new RegExp(`knows no key "${identity}"`));

  await sender.write(STREAM);
  await sender.closeStdin();
  const ended = await sender.ended();
  assert.equal(ended.code, 0, ended.stderr);
  const { stderr } = await recv.ended();
  for (const file of ["said", "used"]) await Deno.remove(`${folder}/${file}`);
  const written = [...Deno.readDirSync(folder)].filter(({ isFile }) => isFile)
    .map(({ name }) => Deno.readTextFileSync(`${folder}/${name}`));
  for (const text of [ended.stderr, stderr, ...statuses, ...written]) {
    for (const form of forms) assert.ok(!text.includes(form), text);
  }
});

Deno.test("each session has a key of its own", async () => {
  await using host = await SshHost.open();
  const { folder } = host;
  const spy = await spyOn(host);
  for (let round = 0; round < 2; round++) {
    await using recv = new KemariProcess(["recv", "0.0.0.0:0", "--control", `${folder}/ctl`]);
    await recv.listening();
    const sent = await runKemari(
      ["send", `ssh:far:${folder}/ctl`, "--ssh", spy],
      { stdin: STREAM },
    );
    assert.equal(sent.code, 0, sent.stderr);
    await recv.ended();
  }
  const said = Deno.readTextFileSync(`${folder}/said`).trim().split("\n");
  const keys = said.map((line) => JSON.parse(line).key);
  assert.equal(new Set(keys).size, 2);
});
