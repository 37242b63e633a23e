import assert from "node:assert/strict";
import { EXIT } from "../errors.ts";
import type { CliCommand } from "./command.ts";
import { COMMANDS } from "./command_list.ts";
import type { HelpTail } from "./help_tail.ts";
import { runProgram } from "./run_program.ts";
import { never } from "../host/system/never.ts";

/** A command, and the words that call it. */
interface Named {
  readonly words: string;
  readonly help: HelpTail;
  readonly isSubcommand: boolean;
}

/** Every command that people call, subcommands too. */
function visible(commands: readonly CliCommand[], before: readonly string[] = []): Named[] {
  return commands.flatMap(({ name, help, subcommands }) => {
    if (help === undefined) return [];
    const words = [...before, name];
    const own = { words: words.join(" "), help, isSubcommand: before.length > 0 };
    return [own, ...visible(subcommands, words)];
  });
}

const NAMED = visible(COMMANDS);

/** Runs a command line on a terminal of some width. @returns What was understood, and written. */
async function runLine(args: readonly string[], columns = 80) {
  const done = { calls: [] as string[], out: "", err: "", exitCode: -1 };
  const io = {
    writeOut: (text: string) => void (done.out += text),
    stderr: {
      write: (text: string) => void (done.err += text),
      isTerminal: true,
      columns: () => columns,
    },
    signal: never,
  };
  done.exitCode = await runProgram(args, "1.2.3", io, ({ command }) => {
    done.calls.push(command);
    return Promise.resolve();
  });
  return done;
}

async function helpOf(words: string, columns = 80): Promise<string> {
  const done = await runLine([...words.split(" "), "--help"].filter((word) => word), columns);
  assert.deepEqual([done.exitCode, done.calls, done.err], [0, [], ""]);
  return done.out;
}

/** The titles of a help's sections, in their order. */
const titlesOf = (text: string) => Array.from(text.matchAll(/^(\S.*):$/gm), ([, title]) => title);

for (const { words, help } of [{ words: "", help: undefined }, ...NAMED]) {
  const name = `kemari ${words}`.trim();

  Deno.test(`${name} --help fits into 80 columns, and into 100 on every wider terminal`, async () => {
    for (const [columns, most] of [[80, 80], [100, 100], [200, 100]]) {
      const lines = (await helpOf(words, columns)).split("\n");
      assert.deepEqual(lines.filter((line) => [...line].length > most), []);
      assert.deepEqual(lines.filter((line) => /\s$/.test(line)), []);
    }
  });

  Deno.test(`${name} --help has options, then examples, then notes, then every exit status`, async () => {
    const text = await helpOf(words);
    assert.ok(text.startsWith(`Usage: ${name} [options]`), text);
    const titles = titlesOf(text);
    const at = titles.indexOf("Examples");
    assert.ok(at > 0, titles.join());
    assert.equal(titles.at(-1), "Exit status");
    assert.match(text, /\nExamples:\n {2}\S/);
    assert.match(text, /\nExit status:\n {2}0 {4}\S[^]*\n {2}2 {4}\S[^]*\n {2}130 {2}\S/);
    if (help === undefined) return;
    assert.deepEqual(titles.slice(at + 1, -1), (help.notes ?? []).map(({ title }) => title));
    for (const status of Object.keys(help.exits) as (keyof typeof EXIT)[]) {
      assert.match(text, new RegExp(`^  ${EXIT[status]} +\\S`, "m"));
    }
    assert.ok(!titles.includes("Options"), "an option stands in no group");
    assert.ok(titles.indexOf("Logging and help") < at);
  });
}

for (const { words, isSubcommand } of NAMED.filter((each) => !each.isSubcommand)) {
  Deno.test(`kemari help ${words} is kemari ${words} --help`, async () => {
    assert.equal(isSubcommand, false);
    assert.equal((await runLine(["help", words])).out, await helpOf(words));
  });
}

/** The words of an example, as a shell splits them; what is behind a pipe or a > is not kemari's. */
function wordsOf(example: string): string[] {
  const line = example.replaceAll("\\\n", " ");
  const words = line.match(/"[^"]*"|[^\s"]+/g) ?? [];
  const end = words.findIndex((word) => /^[|<>#]$/.test(word));
  return words.slice(0, end < 0 ? undefined : end).map((word) => word.replace(/^"(.*)"$/, "$1"));
}

for (const { words, help } of NAMED) {
  for (const example of help.examples) {
    // Others show kemari inside of another command.
    const [program, ...args] = wordsOf(example.replace(/^.*"exec:(kemari [^"]*)".*$/, "$1"));
    if (program !== "kemari") continue;
    Deno.test(`an example in kemari ${words} --help is understood: ${args.join(" ")}`, async () => {
      const { calls } = await runLine(args);
      assert.equal(calls.length, 1);
      assert.ok(calls[0].startsWith(words));
    });
  }
}

Deno.test("kemari --help lists every command and every exit code, and no hidden command", async () => {
  const text = await helpOf("");
  const listed = /\nCommands:\n([^]*?)\n\n/.exec(text)![1];
  const names = Array.from(listed.matchAll(/^ {2}(\S+)/gm), ([, name]) => name);
  const expected = NAMED.filter((each) => !each.isSubcommand).map(({ words }) => words);
  assert.deepEqual(names, [...expected, "help"]);
  for (const code of Object.values(EXIT)) assert.match(text, new RegExp(`^  ${code} `, "m"));
});

Deno.test("kemari bench --help lists every experiment", async () => {
  const { EXPERIMENT_NAMES } = await import("../../bench/run_bench.ts");
  const text = await helpOf("bench");
  for (const name of EXPERIMENT_NAMES) assert.match(text, new RegExp(`^  ${name} `, "m"));
});

Deno.test("kemari drill --help explains every fault, phase and device model", async () => {
  const { DEVICES, FAULTS, PHASES } = await import("../drill/plan.ts");
  const text = await helpOf("drill");
  for (const name of [...DEVICES, ...FAULTS, ...PHASES]) {
    assert.match(text, new RegExp(`^  ${name} `, "m"));
  }
});
