/** `kemari recv` that is told to end in the middle of a takeover: what the next one finds. */
import assert from "node:assert/strict";
import { BLOCKS, fullStream } from "../qemu/testing/synthetic_stream.ts";
import { SecondaryTaps } from "../replica/events/secondary_taps.ts";
import { Replica } from "../replica/secondary/replica.ts";
import { RamDir } from "./ram_dir/ram_dir.ts";
import { until } from "../lab/program/until.ts";
import { quoteWord } from "./takeover/standby_command.ts";

const FAKE = new URL("../lab/testing/fake_qemu.ts", import.meta.url).pathname;
const MAIN = new URL("../../main.ts", import.meta.url).pathname;
const DENO = [Deno.execPath(), "run", "-A", "--quiet", "--no-check"];
const BLOCK_LIST = BLOCKS.map(([name, bytes]) => `${name}=${bytes}`).join(" ");

/** Leaves transaction 1 in a folder, as an earlier recv would. */
function leaveReplica(path: string): void {
  using dir = RamDir.open(path);
  const replica = new Replica(1e8, undefined, new SecondaryTaps(new Map(), new Set()), dir);
  const full = fullStream(1);
  replica.begin({ full: true, based: false });
  replica.receive(full, 0, full.length);
  replica.commit(1);
}

function kemari(...args: string[]): Deno.ChildProcess {
  const [command, ...rest] = [...DENO, MAIN, ...args];
  return new Deno.Command(command, { args: rest, stdin: "null", stdout: "null", stderr: "piped" })
    .spawn();
}

/** What a kemari says, as it says it. */
function wordsOf(child: Deno.ChildProcess): { until(words: RegExp): Promise<void>; all(): string } {
  let said = "";
  let isOver = false;
  const read = async () => {
    for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) said += text;
    isOver = true;
  };
  void read();
  return {
    all: () => said,
    async until(words) {
      await until(() => isOver || words.test(said), `${words}`).catch(() => {});
      assert.match(said, words);
    },
  };
}

interface Case {
  readonly what: string;
  /** Who takes the VM, and makes the file `moment` when recv is to be ended: options of recv. */
  readonly options: (folder: string) => readonly string[];
  readonly ready: RegExp;
  readonly isWhole: boolean;
}

const standby = (fault: string) => (folder: string) => [
  "--standby",
  [...DENO, FAKE, "--blocks", BLOCK_LIST, "--fault", fault, "--moment", `${folder}/moment`]
    .map(quoteWord).join(" "),
];

const CASES: readonly Case[] = [
  {
    what: "the standby was told to run, and is slow",
    options: standby("slow-run"),
    ready: /standby ready/,
    isWhole: false,
  },
  {
    what: "the standby loads, and was told nothing yet",
    options: standby("slow-load"),
    ready: /standby ready/,
    isWhole: true,
  },
  {
    what: "a cold QEMU has the whole stream, and may run what it has loaded",
    // Named as a QEMU that waits for a state: what became of it is looked at for a while.
    options: (folder) => [
      "--exec",
      `exec /bin/sh -c 'cat >/dev/null; : >"$1"; sleep 600 </dev/null' -incoming ${
        quoteWord(`${folder}/moment`)
      }`,
    ],
    ready: /going on with transaction 1/,
    isWhole: false,
  },
  {
    what: "the fence is under way",
    options: (folder) => [
      "--exec",
      "exec sleep 600",
      "--fence",
      `: >${quoteWord(`${folder}/moment`)}; exec sleep 600`,
    ],
    ready: /going on with transaction 1/,
    isWhole: true,
  },
];

for (const { what, options, ready, isWhole } of CASES) {
  Deno.test(`a recv that is ended while ${what}: the replica is ${isWhole ? "kept" : "spent"}`, async () => {
    const folder = Deno.makeTempDirSync({ prefix: "kemari-recv-test-", dir: "/dev/shm" });
    const ram = `${folder}/ram`;
    const children: Deno.ChildProcess[] = [];
    try {
      leaveReplica(ram);
      const control = `${folder}/control`;
      const recv = kemari(
        "recv",
        `unix:${folder}/link`,
        ...["--ram-dir", ram, "--control", control, ...options(folder)],
      );
      children.push(recv);
      const words = wordsOf(recv);
      await words.until(ready);
      const failover = kemari("failover", control);
      children.push(failover);
      const asked = wordsOf(failover);
      const isThere = () => [...Deno.readDirSync(folder)].some(({ name }) => name === "moment");
      await until(isThere, "the moment").catch((cause) => {
        throw new Error(words.all() + asked.all(), { cause });
      });
      recv.kill("SIGTERM");
      assert.equal((await recv.status).code, 130, words.all());
      assert.notEqual((await failover.status).code, 0, "nobody has the VM");
      using again = RamDir.open(ram);
      const found = again.recover();
      assert.equal("nothing" in found ? 0 : found.transaction, isWhole ? 1 : 0, words.all());
      assert.equal(/may have let the VM run here/.test(words.all()), !isWhole, words.all());
    } finally {
      for (const child of children) {
        try {
          child.kill("SIGKILL");
        } catch {
          // It has ended.
        }
        await child.status;
      }
      Deno.removeSync(folder, { recursive: true });
    }
  });
}
