import assert from "node:assert/strict";
import { aloneAfter, encodeRegister, type Register } from "../../arbiter/register.ts";
import { ExecStore } from "./exec_store.ts";

const a = { name: "a", instance: "000000000000000a" };
const FIRST: Register = { state: "alone", vm: "vm", generation: 1, side: a };
const SECOND = aloneAfter(FIRST, a);
const NEVER = new AbortController().signal;

function store(command: string, commandMs?: number): ExecStore {
  return new ExecStore({ name: "exec:test", command, vm: "vm", side: "a", commandMs });
}

/** A register in a file, changed under a lock: what an operator's own script may look like. */
const SCRIPT = `
  exec 9>"$REGISTER.lock"; flock 9
  now=$(cat "$REGISTER" 2>/dev/null)
  case $KEMARI_ARBITER_DO in
    read) printf '%s' "$now" ;;
    swap)
      [ "$now" = "$KEMARI_ARBITER_TO" ] && exit 0
      [ "$now" = "$KEMARI_ARBITER_FROM" ] || exit 1
      printf '%s' "$KEMARI_ARBITER_TO" >"$REGISTER" ;;
  esac`;

Deno.test("a script keeps the register: read, the first, the next, one too late", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const each = store(`REGISTER=${folder}/register; ${SCRIPT}`);
    assert.deepEqual(await each.ask({ do: "read" }, NEVER), { is: "current", register: undefined });
    const first = { do: "swap", from: undefined, to: FIRST } as const;
    assert.deepEqual(await each.ask(first, NEVER), { is: "won" });
    assert.deepEqual(await each.ask(first, NEVER), { is: "won" }, "twice is once");
    assert.deepEqual(await each.ask({ do: "read" }, NEVER), { is: "current", register: FIRST });
    const next = { do: "swap", from: FIRST, to: SECOND } as const;
    assert.deepEqual(await each.ask(next, NEVER), { is: "won" });
    assert.deepEqual(await each.ask(first, NEVER), { is: "current", register: SECOND });
    assert.equal(await Deno.readTextFile(`${folder}/register`), encodeRegister(SECOND));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("the command finds whose VM and which generation it is about", async () => {
  const script =
    `[ "$KEMARI_ARBITER_VM $KEMARI_ARBITER_SIDE $KEMARI_ARBITER_GENERATION" = "vm a 2" ]`;
  const answer = await store(script).ask({ do: "swap", from: FIRST, to: SECOND }, NEVER);
  assert.deepEqual(answer, { is: "won" });
});

Deno.test("who is interrupted already starts no command", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const interrupted = AbortSignal.abort(new Error("interrupted"));
    const asking = store(`touch ${folder}/asked`).ask({ do: "read" }, interrupted);
    await assert.rejects(asking, interrupted.reason);
    assert.deepEqual([...Deno.readDirSync(folder)], []);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

const UNKNOWN: readonly (readonly [string, string, RegExp])[] = [
  ["fails", "exit 7", /exited with 7/],
  ["is not there", "/nonexistent/arbiter", /exited with 127/],
  ["is killed", "kill -9 $$", /exited with/],
  ["takes too long", "sleep 100; exit 0", /longer than 200 ms/],
  [
    "loses, and cannot say to what",
    `[ $KEMARI_ARBITER_DO = read ] && exit 3; exit 1`,
    /exited with 3/,
  ],
];

for (const [of, command, why] of UNKNOWN) {
  Deno.test(`a command that ${of} has not answered`, async () => {
    const answer = await store(command, 200).ask({ do: "swap", from: FIRST, to: SECOND }, NEVER);
    assert.ok(answer.is === "unknown", answer.is);
    assert.match(answer.why, why);
  });
}

Deno.test("what a command prints that is no register is refused", async () => {
  for (const print of ["echo maybe", "yes | head -c 100000"]) {
    const answer = await store(print).ask({ do: "read" }, NEVER);
    assert.equal(answer.is, "foreign");
  }
});
