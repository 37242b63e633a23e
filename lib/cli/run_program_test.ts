import assert from "node:assert/strict";
import { UsageError } from "../errors.ts";
import { runProgram } from "./run_program.ts";
import { never } from "../host/system/never.ts";

/** What a command line did: which command got which arguments and options, and what was written. */
async function runLine(line: string, options: { isTerminal?: boolean; exitCode?: number } = {}) {
  const done = {
    called: [] as [string, readonly unknown[], unknown][],
    out: "",
    err: "",
    isShown: false,
    exitCode: -1,
  };
  const io = {
    writeOut: (text: string) => void (done.out += text),
    stderr: {
      write: (text: string) => void (done.err += text),
      isTerminal: options.isTerminal ?? false,
      columns: () => 80,
    },
    signal: never,
  };
  const args = line.split(" ").filter((word) => word !== "");
  done.exitCode = await runProgram(args, "1.2.3", io, (call, context) => {
    done.called.push([call.command, call.args, call.options]);
    done.isShown = context.status.isShown;
    return Promise.resolve(options.exitCode);
  });
  return done;
}

const log = { logFormat: "text", quiet: false, progress: "auto" };
const link = {
  heartbeatMs: 100,
  graceMs: 3000,
  security: { kind: "plain", crossesNetworks: false },
};
const send = {
  commit: "async",
  maxInFlightBytes: 64 * 2 ** 20,
  compress: "none",
  deltaCacheBytes: 256 * 2 ** 20,
  net: [],
  disk: [],
  diskSync: "full",
  syncIntervalMs: 100,
  syncMinIntervalMs: 1,
  ssh: { ssh: "ssh", remoteKemari: "kemari", overSsh: false },
  ...link,
  ...log,
};
const recv = {
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

const parsed: readonly (readonly [string, string, readonly unknown[], unknown])[] = [
  ["send h:1", "send", ["h:1"], { ...send, stream: "auto" }],
  ["send h:1 --stream colo", "send", ["h:1"], { ...send, stream: "colo" }],
  ["send --commit sync --max-in-flight 1G h:1", "send", ["h:1"], {
    ...send,
    stream: "auto",
    commit: "sync",
    maxInFlightBytes: 2 ** 30,
  }],
  ["send ssh:u@h:/c --ssh ssh\t-p1 --remote-kemari /k --over-ssh --recv unix:/s", "send", [
    "ssh:u@h:/c",
  ], {
    ...send,
    stream: "auto",
    ssh: { ssh: "ssh\t-p1", remoteKemari: "/k", overSsh: true, startRecv: "unix:/s" },
  }],
  ["attach /run/k.ctl", "attach", ["/run/k.ctl"], { ...log }],
  ["attach --start stdio: /run/k.ctl", "attach", ["/run/k.ctl"], { ...log, start: "stdio:" }],
  ["send h:1 --compress zstd --dedup", "send", ["h:1"], {
    ...send,
    stream: "auto",
    compress: "zstd",
    dedup: true,
  }],
  ["send h:1 --compress delta --no-dedup --delta-cache 1G", "send", ["h:1"], {
    ...send,
    stream: "auto",
    compress: "delta",
    dedup: false,
    deltaCacheBytes: 2 ** 30,
  }],
  [
    "send h:1 --qmp /q --control /c --session-name vm1 --heartbeat 50 --grace 2s -q --progress never",
    "send",
    ["h:1"],
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
  ["recv unix:/s", "recv", ["unix:/s"], recv],
  ["recv unix:/s --on-loss activate --fence none --fence-timeout 1m", "recv", ["unix:/s"], {
    ...recv,
    onLoss: "activate",
    fence: "none",
    fenceTimeoutMs: 60_000,
  }],
  ["recv unix:/s --on-loss exit --exec cat --max-transaction 4096 --log-format json", "recv", [
    "unix:/s",
  ], {
    ...recv,
    onLoss: "exit",
    exec: "cat",
    maxTransactionBytes: 4096,
    logFormat: "json",
  }],
  ["protect h:1 --qmp /q", "protect", ["h:1"], protect],
  ["protect h:1 --qmp /q --retry", "protect", ["h:1"], protect],
  ["protect h:1 --qmp /q --no-retry --mode colo --on-secondary-loss stop", "protect", ["h:1"], {
    ...protect,
    retry: false,
    mode: "colo",
    onSecondaryLoss: "stop",
  }],
  ["protect h:1 --qmp /q --sync-interval 20ms", "protect", ["h:1"], {
    ...protect,
    syncIntervalMs: 20,
  }],
  ["protect h:1 --qmp /q --net a=b --net c=d --disk e --sync-on net --disk-sync none", "protect", [
    "h:1",
  ], {
    ...protect,
    net: ["a=b", "c=d"],
    disk: ["e"],
    syncOn: "net",
    diskSync: "none",
  }],
  ["failover /c", "failover", ["/c"], { stale: false, ...log }],
  ["failover /c --stale", "failover", ["/c"], { stale: true, ...log }],
  ["status /c", "status", ["/c"], { json: false, watch: false, ...log }],
  ["status /c --json -w", "status", ["/c"], { json: true, watch: true, ...log }],
  ["inspect f --json", "inspect", ["f"], { json: true, fields: false, ...log }],
  ["inspect - --fields", "inspect", ["-"], { json: false, fields: true, ...log }],
  ["doctor", "doctor", [], { json: false, ...log }],
  ["doctor --qmp /q --qemu /e --json", "doctor", [], { qmp: "/q", qemu: "/e", json: true, ...log }],
  ["drill", "drill", [], {
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
    key: false,
    json: false,
    ...log,
  }],
  ["drill --runs 3 --seconds 9 --memory 512 --keep --json --form memory", "drill", [], {
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
    key: false,
    json: true,
    ...log,
  }],
  [
    "drill --fault link,copy --devices all --disk-mode shared --commit sync --seed 7 --jobs 4 --boot each",
    "drill",
    [],
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
      key: false,
      json: false,
      ...log,
    },
  ],
  ["bench", "bench", [[]], {
    quick: false,
    full: false,
    key: false,
    json: false,
    links: undefined,
    outFolder: undefined,
    fileBytes: undefined,
    recordBytes: undefined,
    ...log,
  }],
  ["bench iozone --rounds 2 --seconds 3 --file-size 8M --record-sizes 4k,64K", "bench", [[
    "iozone",
  ]], {
    quick: false,
    full: false,
    key: false,
    json: false,
    links: undefined,
    outFolder: undefined,
    rounds: 2,
    seconds: 3,
    fileBytes: 8 * 2 ** 20,
    recordBytes: [4096, 65536],
    ...log,
  }],
  ["bench a b --quick --json --out d --link 1G,none", "bench", [["a", "b"]], {
    quick: true,
    full: false,
    key: false,
    json: true,
    links: ["1G", "none"],
    outFolder: "d",
    fileBytes: undefined,
    recordBytes: undefined,
    ...log,
  }],
  ["bench compare a b start --json -q", "bench compare", ["a", "b", ["start"]], {
    json: true,
    ...log,
    quiet: true,
  }],
];

for (const [line, ...call] of parsed) {
  Deno.test(`kemari ${line} is understood`, async () => {
    const done = await runLine(line);
    assert.deepEqual(done.called, [call]);
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
