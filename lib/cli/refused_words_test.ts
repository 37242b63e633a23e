/** What a command refuses does not stand in its help as if the command took it. */
import assert from "node:assert/strict";
import { runKemari } from "../lab/program/run_kemari.ts";
import { runProgram } from "./run_program.ts";

async function helpOf(command: string): Promise<string> {
  let help = "";
  const stderr = { write() {}, isTerminal: false, columns: () => 80 };
  const { signal } = new AbortController();
  const writeOut = (text: string) => void (help += text);
  await runProgram([command, "--help"], "1.2.3", { writeOut, stderr, signal });
  return help;
}

/** Every form of an address, and addresses of that form at which nothing can be reached or made. */
const FORMS: Readonly<Record<string, { readonly target: string; readonly listen: string }>> = {
  "HOST:PORT": { target: "127.0.0.1:1", listen: "192.0.2.1:1" },
  "tcp:HOST:PORT": { target: "tcp:127.0.0.1:1", listen: "tcp:192.0.2.1:1" },
  "unix:PATH": { target: "unix:/nonexistent/s", listen: "unix:/nonexistent/s" },
  "ssh:HOST[:PATH]": { target: "ssh:nobody.invalid", listen: "ssh:nobody.invalid" },
  "exec:CMD": { target: "exec:false", listen: "exec:false" },
  "stdio:": { target: "stdio:", listen: "stdio:" },
};

/** Ends with 2 where the address is refused, and with 4 where it is tried. */
const COMMANDS: Readonly<Record<string, (form: typeof FORMS[string]) => string[]>> = {
  send: ({ target }) => [target],
  protect: ({ target }) => [target, "--qmp", "/nonexistent/qmp", "--no-retry"],
  recv: ({ listen }) => [listen, "--plain", "--on-loss", "exit", "--exec", "cat"],
};

for (const [command, argsFor] of Object.entries(COMMANDS)) {
  Deno.test(`kemari ${command} takes the forms of addresses that its help lists, and no other`, async () => {
    const help = await helpOf(command);
    for (const [form, addresses] of Object.entries(FORMS)) {
      const isListed = help.split("\n").some((line) => line.startsWith(`  ${form}  `));
      const { code, stderr } = await runKemari([command, ...argsFor(addresses)]);
      assert.equal(code, isListed ? 4 : 2, `${form}: ${stderr}`);
    }
  });
}

/** Options that do not go together, and where the help says so. */
const PAIRS: readonly (readonly [string, string, RegExp])[] = [
  ["recv stdio:", "recv", /stdio: .*only with --exec or --standby/],
  ["protect h:1 --qmp /q --via /v --net n=unix:/n,unix:/o", "protect", /--via .*instead of --net/],
  ["protect h:1 --qmp /q --via /v --disk d=/i,unix:/s", "protect", /--via .*instead of .*--disk/],
  ["protect h:1 --qmp /q --via /v --control /c", "protect", /--via .*instead of .*--control/],
  ["drill --ping-pong 2 --fault link", "drill", /--ping-pong <n> +instead of --fault/],
  ["drill --fault copy --disk-mode shared", "drill", /copy and apply need a replicated disk/],
  ["drill --form memory --fault link", "drill", /form knows only the fault primary/],
  ["drill --form memory --ping-pong 2", "drill", /refuses --ping-pong/],
  ["drill --form memory --devices all", "drill", /refuses .*--devices/],
  ["drill --form memory --disk-mode shared", "drill", /refuses .*--disk-mode/],
  ["drill --form memory --commit sync", "drill", /refuses .*--commit/],
];
for (const [line, command, said] of PAIRS) {
  Deno.test(`kemari ${line} is refused, and the help of ${command} says so`, async () => {
    const refused = await runKemari(line.split(" "));
    assert.equal(refused.code, 2, refused.stderr);
    assert.match((await helpOf(command)).replaceAll(/\s+/g, " "), said);
  });
}
