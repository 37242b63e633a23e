/** ssh:HOST as a target, with a real sshd. */
import assert from "node:assert/strict";
import { loadStream } from "../lab/recording/streams.ts";
import { KemariProcess } from "../lab/program/kemari_process.ts";
import { until } from "../lab/program/until.ts";
import { SshHost } from "../lab/testing/ssh_host.ts";
import { vmStateOf } from "../lab/vms/vm_state.ts";

const STREAM = loadStream("plain-7.2-bios");

/** Arguments of a sender. */
function wordsFor(host: SshHost, ...words: readonly string[]): string[] {
  return ["send", `ssh:far:${host.folder}/ctl`, "--ssh", host.ssh, ...words];
}

/** Sends the stream, to the end. */
async function send(host: SshHost, ...words: readonly string[]) {
  await using send = new KemariProcess(wordsFor(host, ...words), { stdin: "piped" });
  await send.write(STREAM);
  await send.closeStdin();
  return await send.ended();
}

function startRecv(host: SshHost, listen: string, ...words: readonly string[]): KemariProcess {
  return new KemariProcess(["recv", listen, "--control", `${host.folder}/ctl`, ...words]);
}

/** Nothing of ssh is left, on neither side. */
async function assertAllGone(host: SshHost): Promise<void> {
  await until(
    () => host.processes.every((line) => !/ssh_config|sshd|attach/.test(line)),
    "ssh is left",
    { limitMs: 5000 },
  );
}

for (
  const [listen, words] of [
    ["0.0.0.0:0", []],
    ["[::]:0", []],
    ["0.0.0.0:0", ["--over-ssh"]],
    ["127.0.0.1:0", ["--over-ssh"]],
    ["unix", ["--over-ssh"]],
  ] as const
) {
  const how = words.length > 0 ? "over ssh itself" : "by TLS, with a key that ssh has brought";
  Deno.test(`a sender comes by ssh to a recv at ${listen}, ${how}`, async () => {
    await using host = await SshHost.open();
    await using recv = startRecv(host, listen === "unix" ? `unix:${host.folder}/s` : listen);
    await recv.listening();
    const { code, stderr } = await send(host, ...words);
    assert.equal(code, 0, stderr);
    const ended = await recv.ended();
    assert.equal(ended.code, 0, ended.stderr);
    assert.deepEqual(await vmStateOf(ended.stdout), await vmStateOf(STREAM));
    await assertAllGone(host);
    assert.equal(host.log.match(/Accepted publickey/g)?.length, 1);
    assert.deepEqual(
      [...Deno.readDirSync(host.folder)].filter(({ isSymlink, name }) => {
        return isSymlink || name === "ctl" || name === "s";
      }),
      [],
    );
  });
}

Deno.test("a recv that needs no control socket lets nobody in that has no session's key", async () => {
  await using host = await SshHost.open();
  await using recv = startRecv(host, "0.0.0.0:0");
  const address = await recv.listening();
  await recv.waitFor(/without --key, --tls-dir or --plain, only senders that come by ssh/);
  await Deno.writeTextFile(`${host.folder}/key`, `kemari:${"0a".repeat(32)}\n`, { mode: 0o600 });
  for (const words of [[], ["--key", `${host.folder}/key`]]) {
    await using stranger = new KemariProcess(["send", address, ...words], { stdin: "piped" });
    await stranger.write(STREAM);
    await stranger.closeStdin();
    const { code, stderr } = await stranger.ended();
    assert.notEqual(code, 0, stderr);
  }
  assert.equal((await send(host)).code, 0);
  assert.equal((await recv.ended()).code, 0);
});

Deno.test("a recv that lets others in with --key takes a sender by ssh too", async () => {
  await using host = await SshHost.open();
  await Deno.writeTextFile(`${host.folder}/key`, `kemari:${"0a".repeat(32)}\n`, { mode: 0o600 });
  await using recv = startRecv(host, "0.0.0.0:0", "--key", `${host.folder}/key`);
  await recv.listening();
  const { code, stderr } = await send(host);
  assert.equal(code, 0, stderr);
  assert.equal((await recv.ended()).code, 0);
});

Deno.test("what ssh, or the host behind it, refuses is told with what to do, and ends with 4", async () => {
  await using host = await SshHost.open();
  await using recv = startRecv(host, "127.0.0.1:0");
  await recv.listening();
  const cases: [
    name: string,
    words: string[],
    prepare: () => Promise<unknown>,
    message: RegExp,
    hint: RegExp,
  ][] = [
    [
      "no such host",
      [],
      () => host.configure("ProxyCommand none", "HostName nobody.invalid"),
      /ssh cannot log in: .*Could not resolve hostname nobody\.invalid/,
      /check the name/,
    ],
    [
      "nobody listens there",
      [],
      () => host.configure("ProxyCommand none", "Port 1"),
      /ssh cannot log in: .*port 1: Connection refused/,
      /does its ssh server listen/,
    ],
    [
      "the host is not known",
      [],
      () => host.know("none"),
      /ssh cannot log in: Host key verification failed/,
      /compare the host's key, and accept it/,
    ],
    [
      "the host's key has changed",
      [],
      () => host.know("other_key"),
      /ssh cannot log in: Host key verification failed/,
      /another key than it had: find out why/,
    ],
    [
      "the user may not log in",
      [],
      () => host.write("authorized_keys", []),
      /ssh cannot log in: .*Permission denied \(publickey\)/,
      /ssh-copy-id/,
    ],
    [
      "no kemari there",
      ["--remote-kemari", "kemary"],
      () => Promise.resolve(),
      /there is no kemari on that host: .*kemary: not found/,
      /--remote-kemari/,
    ],
    [
      "a kemari that cannot be run",
      ["--remote-kemari", `${host.folder}/ssh_config`],
      () => Promise.resolve(),
      /kemari cannot be run on that host: .*[Pp]ermission denied/,
      /mode/,
    ],
    [
      "an older kemari",
      ["--remote-kemari", "echo \"kemari: unknown command 'attach'\" >&2; exit 2; :"],
      () => Promise.resolve(),
      /the kemari on that host does not know how to attach a sender: kemari: unknown command/,
      /the same kemari on both hosts/,
    ],
    [
      "a later kemari",
      ["--remote-kemari", `echo '{"kemari":"attach","version":9,"software":"kemari 9"}'; :`],
      () => Promise.resolve(),
      /kemari 9 there attaches senders in another way \(version 9, and here it is 1\)/,
      /the same kemari on both hosts/,
    ],
    [
      "a login shell that greets",
      ["--remote-kemari", "echo 'Welcome to far!'; kemari"],
      () => Promise.resolve(),
      /"Welcome to far!" was said there before kemari spoke/,
      /\.bashrc/,
    ],
    [
      "an account without a shell",
      ["--remote-kemari", "printf 'not available'; exit 1; :"],
      () => Promise.resolve(),
      /"not available" was said there instead of kemari's words, and the command ended with 1/,
      /kemari --version/,
    ],
    [
      "no recv there",
      [],
      () => Deno.rename(`${host.folder}/ctl`, `${host.folder}/ctl2`),
      /refused there: .*there is no such control socket/,
      /start kemari with --control/,
    ],
    [
      "a recv that takes plain connections",
      [],
      () => Promise.resolve(),
      /refused there: .*this recv takes plain connections/,
      /--over-ssh/,
    ],
    [
      "no ssh here",
      ["--ssh", "nossh"],
      () => Promise.resolve(),
      /no ssh can be run here: .*nossh: not found/,
      /OpenSSH's client/,
    ],
  ];
  for (const [name, words, prepare, message, hint] of cases) {
    await prepare();
    const { code, stderr, stdout } = await send(host, ...words);
    assert.equal(code, 4, `${name}: ${stderr}`);
    assert.match(stderr, message, name);
    assert.match(stderr, new RegExp(`\nhint: .*${hint.source}`), name);
    assert.equal(stdout.length, 0, name);
    await assertAllGone(host);
    await host.configure();
    await host.know("host_key");
    await Deno.copyFile(`${host.folder}/user_key.pub`, `${host.folder}/authorized_keys`);
    await Deno.rename(`${host.folder}/ctl2`, `${host.folder}/ctl`).catch(() => {});
  }
});

for (
  const [what, before] of [
    ["a host that hangs", "sleep 1000"],
    [
      "a kemari that hangs",
      `echo '{"kemari":"attach","version":1,"software":"x"}'; cat >/dev/null`,
    ],
  ]
) {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    Deno.test(`${signal} does not wait for ${what}, and leaves no ssh`, async () => {
      await using host = await SshHost.open({ before });
      await using sender = new KemariProcess(wordsFor(host), { stdin: "piped" });
      await until(() => host.processes.some((line) => line.includes("ssh_config -T")), "ssh");
      await until(() => /Accepted/.test(host.log), "a login");
      sender.signal(signal);
      const { code } = await sender.ended(10_000);
      assert.equal(code, 130);
      await assertAllGone(host);
    });
  }
}

Deno.test("a recv that was started by ssh outlives it, and serves the next sender", async () => {
  await using host = await SshHost.open();
  const control = `${host.folder}/ctl`;
  const args = `unix:${host.folder}/s --exec 'cat > ${host.folder}/vm' --on-loss wait`;
  await using sender = new KemariProcess(
    wordsFor(host, "--over-ssh", "--recv", args, "--stream", "plain"),
    { stdin: "piped" },
  );
  await sender.write(STREAM);
  const log = () => {
    try {
      return Deno.readTextFileSync(`${control}.log`);
    } catch {
      return "";
    }
  };
  await until(() => /sender connected/.test(log()), "the session");
  assert.equal(Deno.statSync(`${control}.log`).mode! & 0o777, 0o600);
  const pids = host.processes.filter((line) => /ssh_config -T|sshd|attach/.test(line))
    .map((line) => Number(line.split(" ")[0])).filter((pid) => pid !== sender.pid);
  assert.ok(pids.length >= 3, host.processes.join("\n"));
  for (const pid of pids) {
    try {
      Deno.kill(pid, "SIGKILL");
    } catch {
      // It went with another.
    }
  }
  const { code, stderr } = await sender.ended();
  assert.equal(code, 4, stderr);
  assert.match(stderr, /ssh/);
  await until(() => /primary lost|sender closed/.test(log()), log());
  const recvs = () => host.processes.filter((line) => line.includes(" recv "));
  assert.equal(recvs().length, 1, "it lives");
  // Another sender finds it, and starts none; the VM is handed over to it.
  const again = await send(host, "--over-ssh", "--recv", args);
  assert.equal(again.code, 0, again.stderr);
  await until(() => recvs().length === 0, "its end");
  assert.deepEqual(
    await vmStateOf(Deno.readFileSync(`${host.folder}/vm`)),
    await vmStateOf(STREAM),
  );
  assert.equal(log().match(/listening on/g)?.length, 1);
});

Deno.test("a login that may only attach brings its sender to that recv, and starts none", async () => {
  await using host = await SshHost.open();
  await host.script(
    "command",
    `export PATH=${host.folder}/bin:/usr/bin:/bin; exec kemari attach ${host.folder}/ctl`,
  );
  const words = ["--recv", "--nonsense"];
  const none = await send(host, ...words);
  assert.equal(none.code, 4);
  assert.match(none.stderr, /refused there: .*there is no such control socket/);
  await using recv = startRecv(host, "0.0.0.0:0");
  await recv.listening();
  const { code, stderr } = await send(host, ...words);
  assert.equal(code, 0, stderr);
  assert.equal((await recv.ended()).code, 0);
});

Deno.test("a recv that cannot be started says why, and so does the sender", async () => {
  await using host = await SshHost.open();
  for (
    const [args, message] of [
      ["unix:/nonexistent/s --exec cat", /ended with 4: .*\/nonexistent\/s/],
      ["0.0.0.0:0", /ended with 2: .*stdout is closed/],
      ["--nonsense", /ended with 2: .*nonsense/],
    ] as const
  ) {
    const { code, stderr } = await send(host, "--recv", args);
    assert.equal(code, 4, stderr);
    assert.match(stderr, /refused there: .*no kemari recv could be started: it /);
    assert.match(stderr, message);
    assert.match(stderr, /\nhint: look at --recv, and at .*ctl\.log on that host/);
  }
  await assertAllGone(host);
  assert.deepEqual(host.processes, []);
});
