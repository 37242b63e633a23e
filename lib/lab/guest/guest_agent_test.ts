import assert from "node:assert/strict";
import { StateError, TransportError } from "../../errors.ts";
import { encodeCommand, GuestAgent } from "./guest_agent.ts";
import { COMMAND_LIMIT, initScript } from "./init_script.ts";

const text = new TextEncoder();

/** An agent whose guest is the test: sent lines in, answers out. */
function agentWithLines() {
  const lines: string[] = [];
  const agent = new GuestAgent("test", (bytes) => {
    lines.push(...new TextDecoder().decode(bytes).split("\n").filter((line) => line !== ""));
    return Promise.resolve();
  });
  return { agent, lines, answer: (line: string) => agent.receive(text.encode(line)) };
}

Deno.test("encodeCommand keeps quotes, newlines and non-ASCII out of the line", () => {
  const command = `echo "it's" && printf 'ä\\n'\nls $HOME`;
  const line = new TextDecoder().decode(encodeCommand("id", command));
  const match = /^\nrun id (\d+) ([A-Za-z0-9+/=]+)\n$/.exec(line)!;
  assert.equal(match[2].length, Number(match[1]));
  const raw = Uint8Array.from(atob(match[2]), (c) => c.charCodeAt(0));
  assert.equal(new TextDecoder().decode(raw), command);
});

Deno.test("encodeCommand refuses what the guest's tty cannot hold", () => {
  assert.throws(() => encodeCommand("id", "x".repeat(COMMAND_LIMIT)), StateError);
});

Deno.test("GuestAgent joins output that arrives in any pieces", async () => {
  const { agent, lines, answer } = agentWithLines();
  const result = agent.run("cat");
  const id = lines[0].split(" ")[1];
  const whole = `out ${id} ${btoa("hello wor")}\r\nout ${id} ${btoa("ld\n")}\r\nend ${id} 3\r\n`;
  for (const character of whole) answer(character);
  assert.deepEqual(await result, { code: 3, output: "hello world\n" });
});

Deno.test("GuestAgent ignores lines of commands that it does not know, and cut lines", async () => {
  const { agent, lines, answer } = agentWithLines();
  const result = agent.run("true");
  const id = lines[0].split(" ")[1];
  answer(`WxyZ\nbad\nout old-1 ${btoa("no")}\nend old-1 9\nend ${id} 0\n`);
  assert.deepEqual(await result, { code: 0, output: "" });
});

Deno.test("GuestAgent reports a silent guest and a guest that is gone", async () => {
  const { agent } = agentWithLines();
  await assert.rejects(agent.run("sleep 9", { timeoutMs: 10 }), TransportError);
  const waiting = agent.run("sleep 9");
  agent.end();
  await assert.rejects(waiting, TransportError);
  await assert.rejects(agent.run("true"), TransportError);
});

Deno.test("initScript is a script that a POSIX shell can parse", async () => {
  const path = await Deno.makeTempFile();
  try {
    await Deno.writeTextFile(path, initScript());
    const { code, stderr } = await new Deno.Command("sh", { args: ["-n", path] }).output();
    assert.equal(code, 0, new TextDecoder().decode(stderr));
  } finally {
    await Deno.remove(path);
  }
});
