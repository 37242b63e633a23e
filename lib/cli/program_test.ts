import assert from "node:assert/strict";
import { UsageError } from "../errors.ts";
import type { Commands } from "./commands.ts";
import { runProgram } from "./program.ts";

const NAMES: readonly (keyof Commands)[] = [
  "send",
  "recv",
  "protect",
  "failover",
  "status",
  "inspect",
  "doctor",
  "drill",
  "bench",
  "benchCompare",
];

/** The words that call it. */
const wordsOf = (name: string) => name === "benchCompare" ? "bench compare" : name;

/** What a command line did: which command got which options, and what was written. */
async function runLine(line: string, options: { isTerminal?: boolean; exitCode?: number } = {}) {
  const done = {
    called: [] as [string, unknown][],
    out: "",
    err: "",
    isShown: false,
    exitCode: -1,
  };
  const entries = NAMES.map((name) => [
    name,
    (given: unknown, context: { status: { isShown: boolean } }) => {
      done.called.push([name, given]);
      done.isShown = context.status.isShown;
      return Promise.resolve(options.exitCode);
    },
  ]);
  const io = {
    writeOut: (text: string) => void (done.out += text),
    stderr: {
      write: (text: string) => void (done.err += text),
      isTerminal: options.isTerminal ?? false,
      columns: () => 80,
    },
    signal: new AbortController().signal,
  };
  const args = line.split(" ").filter((word) => word !== "");
  done.exitCode = await runProgram(args, "1.2.3", io, Object.fromEntries(entries) as Commands);
  return done;
}

const log = { logFormat: "text", quiet: false, progress: "auto" };
const link = { heartbeatMs: 100, graceMs: 3000 };
const send = {
  target: "h:1",
  commit: "async",
  maxInFlightBytes: 64 * 2 ** 20,
  compress: "none",
  deltaCacheBytes: 256 * 2 ** 20,
  net: [],
  disk: [],
  diskSync: "full",
  syncIntervalMs: 100,
  syncMinIntervalMs: 1,
  ...link,
  ...log,
};
const recv = {
  listen: "unix:/s",
  onLoss: "wait",
  fenceTimeoutMs: 30_000,
  maxTransactionBytes: undefined,
  net: [],
  disk: [],
  ramReserve: "full",
  replay: "net,disk,input",
  ...link,
  ...log,
};
const protect = {
  ...send,
  qmp: "/q",
  mode: "auto",
  syncIntervalMs: 100,
  onSecondaryLoss: "continue",
  retry: true,
};

const parsed: readonly (readonly [string, string, unknown])[] = [
  ["send h:1", "send", { ...send, stream: "auto" }],
  ["send h:1 --stream colo", "send", { ...send, stream: "colo" }],
  ["send --commit sync --max-in-flight 1G h:1", "send", {
    ...send,
    stream: "auto",
    commit: "sync",
    maxInFlightBytes: 2 ** 30,
  }],
  ["send h:1 --compress zstd --dedup", "send", {
    ...send,
    stream: "auto",
    compress: "zstd",
    dedup: true,
  }],
  ["send h:1 --compress delta --no-dedup --delta-cache 1G", "send", {
    ...send,
    stream: "auto",
    compress: "delta",
    dedup: false,
    deltaCacheBytes: 2 ** 30,
  }],
  [
    "send h:1 --qmp /q --control /c --session-name vm1 --heartbeat 50 --grace 2s -q --progress never",
    "send",
    {
      ...send,
      stream: "auto",
      qmp: "/q",
      control: "/c",
      sessionName: "vm1",
      heartbeatMs: 50,
      graceMs: 2000,
      quiet: true,
      progress: "never",
    },
  ],
  ["recv unix:/s", "recv", recv],
  ["recv unix:/s --on-loss activate --fence none --fence-timeout 1m", "recv", {
    ...recv,
    onLoss: "activate",
    fence: "none",
    fenceTimeoutMs: 60_000,
  }],
  ["recv unix:/s --on-loss exit --exec cat --max-transaction 4096 --log-format json", "recv", {
    ...recv,
    onLoss: "exit",
    exec: "cat",
    maxTransactionBytes: 4096,
    logFormat: "json",
  }],
  ["protect h:1 --qmp /q", "protect", protect],
  ["protect h:1 --qmp /q --retry", "protect", protect],
  ["protect h:1 --qmp /q --no-retry --mode colo --on-secondary-loss stop", "protect", {
    ...protect,
    retry: false,
    mode: "colo",
    onSecondaryLoss: "stop",
  }],
  ["protect h:1 --qmp /q --sync-interval 20ms", "protect", { ...protect, syncIntervalMs: 20 }],
  ["protect h:1 --qmp /q --net a=b --net c=d --disk e --sync-on net --disk-sync none", "protect", {
    ...protect,
    net: ["a=b", "c=d"],
    disk: ["e"],
    syncOn: "net",
    diskSync: "none",
  }],
  ["failover /c", "failover", { socket: "/c", stale: false, ...log }],
  ["failover /c --stale", "failover", { socket: "/c", stale: true, ...log }],
  ["status /c", "status", { socket: "/c", json: false, watch: false, ...log }],
  ["status /c --json -w", "status", { socket: "/c", json: true, watch: true, ...log }],
  ["inspect f --json", "inspect", { file: "f", json: true, fields: false, ...log }],
  ["inspect - --fields", "inspect", { file: "-", json: false, fields: true, ...log }],
  ["doctor", "doctor", { json: false, ...log }],
  ["doctor --qmp /q --qemu /e --json", "doctor", { qmp: "/q", qemu: "/e", json: true, ...log }],
  ["drill", "drill", {
    fault: "primary",
    phase: "all",
    graceMs: 1500,
    devices: "virtio",
    diskMode: "replicated",
    standby: "cold",
    boot: "once",
    jobs: 1,
    commit: "async",
    runs: 1,
    seconds: 5,
    memoryMiB: 256,
    form: "auto",
    keep: false,
    json: false,
    ...log,
  }],
  ["drill --runs 3 --seconds 9 --memory 512 --keep --json --form memory", "drill", {
    fault: "primary",
    phase: "all",
    graceMs: 1500,
    devices: "virtio",
    diskMode: "replicated",
    standby: "cold",
    boot: "once",
    jobs: 1,
    commit: "async",
    form: "memory",
    runs: 3,
    seconds: 9,
    memoryMiB: 512,
    keep: true,
    json: true,
    ...log,
  }],
  [
    "drill --fault link,copy --devices all --disk-mode shared --commit sync --seed 7 --jobs 4 --boot each",
    "drill",
    {
      fault: "link,copy",
      phase: "all",
      graceMs: 1500,
      devices: "all",
      diskMode: "shared",
      standby: "cold",
      boot: "each",
      jobs: 4,
      commit: "sync",
      seed: 7,
      form: "auto",
      runs: 1,
      seconds: 5,
      memoryMiB: 256,
      keep: false,
      json: false,
      ...log,
    },
  ],
  ["bench", "bench", {
    names: [],
    quick: false,
    full: false,
    json: false,
    links: undefined,
    outFolder: undefined,
    fileBytes: undefined,
    recordBytes: undefined,
    ...log,
  }],
  ["bench iozone --rounds 2 --seconds 3 --file-size 8M --record-sizes 4k,64K", "bench", {
    names: ["iozone"],
    quick: false,
    full: false,
    json: false,
    links: undefined,
    outFolder: undefined,
    rounds: 2,
    seconds: 3,
    fileBytes: 8 * 2 ** 20,
    recordBytes: [4096, 65536],
    ...log,
  }],
  ["bench a b --quick --json --out d --link 1G,none", "bench", {
    names: ["a", "b"],
    quick: true,
    full: false,
    json: true,
    links: ["1G", "none"],
    outFolder: "d",
    fileBytes: undefined,
    recordBytes: undefined,
    ...log,
  }],
  ["bench compare a b start --json -q", "benchCompare", {
    before: "a",
    after: "b",
    names: ["start"],
    json: true,
    ...log,
    quiet: true,
  }],
];

for (const [line, name, options] of parsed) {
  Deno.test(`kemari ${line} is understood`, async () => {
    const done = await runLine(line);
    assert.deepEqual(done.called, [[name, options]]);
    assert.deepEqual([done.exitCode, done.out, done.err], [0, "", ""]);
  });
}

const refused: readonly (readonly [string, RegExp])[] = [
  ["snd", /unknown command 'snd'.*send/],
  ["--what", /unknown option '--what'/],
  ["send", /missing required argument 'target'/],
  ["send a b", /too many arguments/],
  ["send a --commit later", /sync, async/],
  ["send a --heartbeat 0", /--heartbeat: "0" is not a duration/],
  ["send a --heartbeat 5x", /--heartbeat: "5x" is not a duration/],
  ["send a --heartbeat 30d", /not a duration/],
  ["send a --grace 1000h", /not a duration between 1ms and 24 days/],
  ["send a --heartbeat 3s --grace 3s", /--grace \(3000 ms\) must be longer than --heartbeat/],
  ["send a --max-in-flight 0", /--max-in-flight: "0" is not a size/],
  ["send a --max-in-flight -1", /not a size/],
  ["send a --max-in-flight 9000000T", /not a size/],
  ["send a --max-in-flight 1e3", /not a size/],
  ["recv a --on-loss activate", /split brain/],
  ["recv a --on-loss never", /wait, activate, exit/],
  ["protect a", /required option '--qmp <socket>'/],
  ["drill --runs 0", /--runs: "0" is not a whole number/],
  ["drill --runs 1.5", /not a whole number/],
  ["drill --jobs 0", /--jobs: "0" is not a whole number/],
  ["drill --boot never", /each, once/],
  ["drill --seed x", /--seed: "x" is not a whole number/],
  ["drill --disk-mode none", /replicated, shared/],
  ["drill now", /too many arguments/],
  ["failover", /missing required argument 'socket'/],
  ["bench --quick --full", /cannot be used with/],
  ["bench --link 1G,2G", /--link: "2G" is no link/],
  ["bench compare a", /missing required argument 'B'/],
];

for (const [line, message] of refused) {
  Deno.test(`kemari ${line} is a usage error`, async () => {
    await assert.rejects(runLine(line), (error) => {
      assert.ok(error instanceof UsageError);
      assert.match(error.message, message);
      assert.doesNotMatch(error.message, /^error:/);
      return true;
    });
  });
}

for (const name of NAMES) {
  const words = wordsOf(name);
  Deno.test(`kemari ${words} --help explains itself on stdout and runs nothing`, async () => {
    const done = await runLine(`${words} --help`);
    assert.deepEqual([done.exitCode, done.called, done.err], [0, [], ""]);
    assert.match(done.out, new RegExp(`^Usage: kemari ${words} `));
    assert.match(done.out, /\nExamples:\n {2}\S/);
    assert.match(done.out, /\nExit status:\n {2}0 {4}\S[^]*\n {2}2 {4}\S[^]*\n {2}130 {2}\S/);
    if (words === name) assert.equal((await runLine(`help ${name}`)).out, done.out);
  });
}

Deno.test("kemari bench --help lists every experiment", async () => {
  const { EXPERIMENT_NAMES } = await import("../../bench/run_bench.ts");
  const { out } = await runLine("bench --help");
  for (const name of EXPERIMENT_NAMES) assert.match(out, new RegExp(`^  ${name} `, "m"));
});

Deno.test("kemari --help lists every command and every exit code", async () => {
  const { out } = await runLine("--help");
  for (const name of NAMES.filter((each) => wordsOf(each) === each)) {
    assert.match(out, new RegExp(`^  ${name} `, "m"));
  }
  for (const code of [0, 2, 3, 4, 5, 70, 130]) assert.match(out, new RegExp(`^  ${code} `, "m"));
});

Deno.test("kemari alone shows its help on stderr and counts as wrong usage", async () => {
  const done = await runLine("");
  assert.equal(done.exitCode, 2);
  assert.equal(done.out, "");
  assert.match(done.err, /^Usage: kemari /);
});

Deno.test("kemari --version prints one line", async () => {
  const done = await runLine("--version");
  assert.deepEqual([done.exitCode, done.out, done.err], [0, "kemari 1.2.3\n", ""]);
});

Deno.test("a command's own exit code is passed on", async () => {
  assert.equal((await runLine("recv a", { exitCode: 7 })).exitCode, 7);
});

const shown: readonly (readonly [string, boolean, boolean])[] = [
  ["send a", true, true],
  ["send a", false, false],
  ["send a -q", true, false],
  ["send a --progress never", true, false],
  ["send a --progress always", false, true],
  ["send a --progress always --log-format json", true, false],
];
for (const [line, isTerminal, expected] of shown) {
  const place = isTerminal ? "on a terminal" : "away from a terminal";
  Deno.test(`kemari ${line} ${place} shows ${expected ? "a" : "no"} status line`, async () => {
    assert.equal((await runLine(line, { isTerminal })).isShown, expected);
  });
}
