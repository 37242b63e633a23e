import assert from "node:assert/strict";
import { parseSshAddress } from "../system/ssh_address.ts";
import { DEFAULT_SSH } from "../system/ssh_address.ts";
import { attachCommand, configCommand, decodeSshConfig, shellQuote } from "./ssh_command.ts";

const PLAIN = { hostname: "far", hasTimeout: false, hasCommand: false };

/** The words that a shell makes of a command line, `exec` left out. */
async function wordsOf(command: string): Promise<string[]> {
  const script = command.replace(/^exec ssh/, `printf '%s\\n'`);
  const { stdout } = await new Deno.Command("/bin/sh", { args: ["-c", script] }).output();
  return new TextDecoder().decode(stdout).trimEnd().split("\n");
}

Deno.test("ssh is given the host as one word, and the command as another", async () => {
  const address = parseSshAddress("ssh:o'brien@far:/run/a 'b' $(c).ctl");
  assert.deepEqual(await wordsOf(configCommand(address)), ["-G", "--", "o'brien@far"]);
  const words = await wordsOf(attachCommand(address, PLAIN));
  assert.deepEqual(words.slice(-3, -1), ["--", "o'brien@far"]);
  // And the login shell there makes words of that.
  assert.deepEqual(
    await wordsOf(words.at(-1)!.replace(/^kemari/, "exec ssh")),
    ["attach", "/run/a 'b' $(c).ctl"],
  );
});

Deno.test("what the user has configured is left alone, but for what is meant for people", async () => {
  const address = parseSshAddress("ssh:far");
  const plain = await wordsOf(attachCommand(address, PLAIN));
  assert.ok(plain.includes("ConnectTimeout=10") && !plain.includes("RemoteCommand=none"));
  const told = await wordsOf(
    attachCommand(address, { ...PLAIN, hasTimeout: true, hasCommand: true }),
  );
  assert.ok(!told.includes("ConnectTimeout=10") && told.includes("RemoteCommand=none"));
});

Deno.test("another ssh, another kemari there, and a recv that is to be started", () => {
  const options = {
    ...DEFAULT_SSH,
    ssh: "ssh -p 2222",
    remoteKemari: "sudo -n kemari",
    startRecv: "0.0.0.0:4000 --exec 'start vm'",
  };
  const address = parseSshAddress("ssh:far", options);
  const remote = `sudo -n kemari attach --start ${shellQuote(options.startRecv)} '/run/kemari.ctl'`;
  const command = attachCommand(address, PLAIN);
  assert.match(command, /^exec ssh -p 2222 -T .* -- 'far' '/);
  assert.ok(command.endsWith(shellQuote(remote)), command);
  assert.ok(!attachCommand(address, PLAIN, false).includes("--start"));
});

Deno.test("of ssh's configuration, the lines that matter are read", () => {
  const text = "host far\nhostname 10.0.0.2\nconnecttimeout 7\nremotecommand tmux attach\n";
  const wanted = { hostname: "10.0.0.2", hasTimeout: true, hasCommand: true };
  assert.deepEqual(decodeSshConfig(text, "far"), wanted);
  assert.deepEqual(decodeSshConfig("", "me@realm@far"), PLAIN);
  assert.deepEqual(decodeSshConfig("garbage\0\nconnecttimeout none", "far"), PLAIN);
});
