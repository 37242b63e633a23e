import assert from "node:assert/strict";
import { packArchive } from "./compile.ts";

/** Stands in for Deno: says its process id and arguments, then passes stdin on. */
const RUNTIME = `#!/bin/sh
echo "pid $$"
for word in "$@"; do echo "arg $word"; done
echo "dir $DENO_DIR"
echo "text $(head -n 1 "$(dirname "$DENO_DIR")"/program-*/kemari.js)"
exec cat
`;

interface Sandbox {
  /** A folder of the test's own. */
  readonly folder: string;
  /** The archive. */
  readonly file: string;
  /** Starts the archive, with no environment but PATH and `env`. */
  start(env: Record<string, string>, options?: StartOptions): Promise<Ended>;
}

interface StartOptions {
  readonly args?: readonly string[];
  readonly command?: readonly string[];
  readonly stdin?: string;
  readonly cwd?: string;
}

interface Ended {
  readonly pid: number;
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Declares a test that has an archive with a stand-in runtime to play with. */
function testArchive(name: string, body: (sandbox: Sandbox) => Promise<void>) {
  Deno.test(`the self-extracting file ${name}`, async () => {
    const folder = await Deno.makeTempDir({ prefix: "kemari launcher " });
    try {
      const file = `${folder}/kemari`;
      await writeArchive(file, RUNTIME);
      const start: Sandbox["start"] = (env, options) => startArchive(file, env, options);
      await body({ folder, file, start });
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });
}

async function writeArchive(file: string, runtime: string) {
  const encoder = new TextEncoder();
  const parts = packArchive([
    { name: "a_worker.js", bytes: encoder.encode("// worker") },
    { name: "kemari.js", bytes: encoder.encode("// program\n".repeat(10_000)) },
  ], encoder.encode(runtime));
  await Deno.writeFile(file, new Uint8Array(await new Blob(parts).arrayBuffer()));
  await Deno.chmod(file, 0o755);
}

async function startArchive(
  file: string,
  env: Record<string, string>,
  { args = [], command = [], stdin = "", cwd }: StartOptions = {},
): Promise<Ended> {
  const [first, ...rest] = [...command, file, ...args];
  const child = new Deno.Command(first, {
    args: rest,
    cwd,
    clearEnv: true,
    env: { PATH: Deno.env.get("PATH") ?? "", ...env },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(stdin)).catch(() => {});
  await writer.close().catch(() => {});
  const { code, stdout, stderr } = await child.output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { pid: child.pid, code, stdout: text(stdout), stderr: text(stderr) };
}

/** All files and folders below `folder`, by relative path. */
async function listing(folder: string, prefix = ""): Promise<string[]> {
  const found: string[] = [];
  for await (const entry of Deno.readDir(folder)) {
    found.push(prefix + entry.name);
    if (entry.isDirectory) {
      found.push(...await listing(`${folder}/${entry.name}`, `${prefix}${entry.name}/`));
    }
  }
  return found.sort();
}

const words = (text: string, key: string) =>
  text.split("\n").filter((line) => line.startsWith(`${key} `)).map((line) =>
    line.slice(key.length + 1)
  );

testArchive("becomes the runtime: same process, same stdin, arguments as given", async (box) => {
  for (const time of ["first", "second"]) {
    const ended = await box.start({ XDG_CACHE_HOME: `${box.folder}/cache` }, {
      args: ["send", "a  b", "", "$HOME*"],
      stdin: "QEVM\0stream",
    });
    assert.deepEqual([ended.code, ended.stderr], [0, ""], time);
    assert.deepEqual(words(ended.stdout, "pid"), [String(ended.pid)]);
    assert.deepEqual(words(ended.stdout, "text"), ["// program"]);
    const args = words(ended.stdout, "arg");
    assert.deepEqual(args.slice(-4), ["send", "a  b", "", "$HOME*"]);
    assert.equal(args[0], "run");
    for (const flag of ["--no-remote", "--no-config", "--no-npm", "--no-prompt"]) {
      assert.ok(args.includes(flag), flag);
    }
    assert.ok(ended.stdout.endsWith("\nQEVM\0stream"));
  }
});

testArchive("unpacks once, for its user only", async (box) => {
  const cache = `${box.folder}/cache`;
  await box.start({ XDG_CACHE_HOME: cache });
  const before = await listing(cache);
  assert.equal(before.filter((path) => /\/kemari$/.test(path)).length, 1);
  assert.equal(before.filter((path) => /\/(a_worker|kemari)\.js$/.test(path)).length, 2);
  for (const path of before) {
    const { mode, isDirectory } = await Deno.lstat(`${cache}/${path}`);
    assert.equal(mode! & 0o077, 0, path);
    if (!isDirectory) await Deno.utime(`${cache}/${path}`, 1, 1);
  }
  await box.start({ XDG_CACHE_HOME: cache });
  assert.deepEqual(await listing(cache), before);
  for (const path of before.filter((path) => /kemari$|js$/.test(path))) {
    const { mtime, isFile } = await Deno.stat(`${cache}/${path}`);
    if (isFile) assert.equal(mtime!.getTime(), 1000, `${path} was written again`);
  }
});

testArchive("may be started many times at once", async (box) => {
  const cache = `${box.folder}/cache`;
  const all = await Promise.all(
    Array.from({ length: 8 }, (_, n) => box.start({ XDG_CACHE_HOME: cache }, { stdin: `${n}` })),
  );
  for (const [n, ended] of all.entries()) {
    assert.deepEqual([ended.code, ended.stderr], [0, ""]);
    assert.ok(ended.stdout.endsWith(`\n${n}`));
  }
  assert.deepEqual((await listing(cache)).filter((path) => /\/new-/.test(path)), []);
});

const places: readonly (readonly [string, Record<string, string>, string])[] = [
  ["XDG_CACHE_HOME", { XDG_CACHE_HOME: "@/x", HOME: "@/h", TMPDIR: "@/t" }, "@/x/kemari"],
  ["HOME", { HOME: "@/h", TMPDIR: "@/t" }, "@/h/.cache/kemari"],
  ["a relative XDG_CACHE_HOME", { XDG_CACHE_HOME: "x", HOME: "@/h" }, "@/h/.cache/kemari"],
  ["neither", { TMPDIR: "@/t" }, `@/t/kemari-${Deno.uid()}`],
  [
    "a HOME that cannot be written",
    { HOME: "/dev/null", TMPDIR: "@/t" },
    `@/t/kemari-${Deno.uid()}`,
  ],
];
for (const [what, env, expected] of places) {
  testArchive(`finds a folder, given ${what}`, async (box) => {
    const here = (text: string) => text.replace("@", box.folder);
    for (const name of ["x", "h", "t"]) await Deno.mkdir(`${box.folder}/${name}`);
    const given = Object.fromEntries(Object.entries(env).map(([k, v]) => [k, here(v)]));
    const ended = await box.start(given);
    assert.equal(ended.code, 0, ended.stderr);
    assert.deepEqual(words(ended.stdout, "dir"), [`${here(expected)}/deno`]);
  });
}

testArchive("does not follow a link that somebody left in the temporary folder", async (box) => {
  await Deno.mkdir(`${box.folder}/t`);
  await Deno.mkdir(`${box.folder}/elsewhere`);
  await Deno.symlink(`${box.folder}/elsewhere`, `${box.folder}/t/kemari-${Deno.uid()}`);
  const ended = await box.start({ TMPDIR: `${box.folder}/t` });
  try {
    assert.equal(ended.code, 0, ended.stderr);
    assert.deepEqual(await listing(`${box.folder}/elsewhere`), []);
  } finally {
    // It went on to the common temporary folder.
    for (const dir of words(ended.stdout, "dir")) {
      if (!dir.startsWith(box.folder)) {
        await removeUnpacked(dir.slice(0, -"/deno".length), box.file);
      }
    }
  }
});

/** Removes what the archive `file` unpacked into `root`, which others may be using too. */
async function removeUnpacked(root: string, file: string) {
  const text = new TextDecoder().decode((await Deno.readFile(file)).subarray(0, 65536));
  for (const [name] of text.matchAll(/(runtime|program)-[0-9a-f]{16}/g)) {
    await Deno.remove(`${root}/${name}`, { recursive: true }).catch(() => {});
  }
  await Deno.remove(root).catch(() => {}); // only if nothing else is in it
}

testArchive("replaces what was cut short", async (box) => {
  const cache = `${box.folder}/cache`;
  await box.start({ XDG_CACHE_HOME: cache });
  for (const path of await listing(cache)) {
    if (/\/kemari(\.js)?$/.test(path)) await Deno.truncate(`${cache}/${path}`, 5);
  }
  const ended = await box.start({ XDG_CACHE_HOME: cache });
  assert.deepEqual([ended.code, words(ended.stdout, "text")], [0, ["// program"]]);
});

testArchive("refuses to run when it is damaged itself, and says so", async (box) => {
  const bytes = await Deno.readFile(box.file);
  bytes[bytes.length - 2] ^= 1;
  await Deno.writeFile(box.file, bytes);
  const ended = await box.start({ XDG_CACHE_HOME: `${box.folder}/cache`, HOME: "/dev/null" });
  assert.deepEqual([ended.code, ended.stdout], [4, ""]);
  assert.match(ended.stderr, /^kemari: cannot unpack.*\nhint: .*damaged\n$/);
});

for (const shell of ["sh", "dash", "bash", "busybox sh"]) {
  const command = shell.split(" ");
  const has = new Deno.Command("sh", { args: ["-c", `command -v ${command[0]}`] }).outputSync();
  // A shell that is not there cannot be the one that starts kemari.
  if (!has.success) continue;
  testArchive(`works under ${shell}`, async (box) => {
    const env = { XDG_CACHE_HOME: `${box.folder}/cache` };
    for (const stdin of ["first", "second"]) {
      const ended = await box.start(env, { command, args: ["x"], stdin });
      assert.deepEqual([ended.code, ended.stderr], [0, ""]);
      assert.ok(ended.stdout.endsWith(`\n${stdin}`));
    }
  });
}

testArchive("is found on PATH", async (box) => {
  const env = {
    XDG_CACHE_HOME: `${box.folder}/cache`,
    PATH: `${box.folder}:${Deno.env.get("PATH")}`,
  };
  const ended = await startArchive("kemari", env, { args: ["x"], cwd: "/" });
  assert.equal(ended.code, 0, ended.stderr);
});
