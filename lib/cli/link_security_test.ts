/** What a link's security is told and asked for on the command line. */
import assert from "node:assert/strict";
import { loadStream } from "../lab/recording/streams.ts";
import { ensureTool } from "../lab/provision/tools.ts";
import { FROM_SOURCE, KemariProcess } from "../lab/program/kemari_process.ts";
import { runKemari } from "../lab/program/run_kemari.ts";
import { vmStateOf } from "../lab/vms/vm_state.ts";
import { TestAuthority } from "../host/tls/testing/test_certificates.ts";

const STREAM = loadStream("plain-7.2-bios");

async function inFolder(body: (folder: string) => Promise<void>) {
  const folder = await Deno.makeTempDir({ prefix: "kemari-security-" });
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function keygen(...words: string[]): Promise<void> {
  const { code, stderr } = await runKemari(["keygen", ...words]);
  assert.equal(code, 0, stderr);
}

/** Sends the stream. */
async function send(...words: string[]) {
  await using send = new KemariProcess(["send", ...words], { stdin: "piped" });
  await send.write(STREAM);
  await send.closeStdin();
  return await send.ended();
}

Deno.test("kemari keygen makes a file for its owner alone, and overwrites none", () =>
  inFolder(async (folder) => {
    const made = await runKemari(["keygen", `${folder}/key`]);
    assert.deepEqual([made.code, made.stdout], [0, ""], made.stderr);
    const first = Deno.readTextFileSync(`${folder}/key`);
    assert.match(first, /^kemari:[0-9a-f]{64}\n$/);
    assert.equal(Deno.statSync(`${folder}/key`).mode! & 0o777, 0o600);

    const again = await runKemari(["keygen", `${folder}/key`]);
    assert.equal(again.code, 4);
    assert.match(again.stderr, /key: there is such a file: no key is ever overwritten\nhint: /);
    assert.equal(Deno.readTextFileSync(`${folder}/key`), first);

    await using masked = new KemariProcess(
      ["keygen", `${folder}/masked`, "--identity", "host 2"],
      { before: "umask 0777;" },
    );
    assert.equal((await masked.ended()).code, 0);
    assert.match(Deno.readTextFileSync(`${folder}/masked`), /^host 2:[0-9a-f]{64}\n$/);
    assert.equal(Deno.statSync(`${folder}/masked`).mode! & 0o777, 0o600);

    for (const identity of ["", "a:b", "#a", "a\nb", "x".repeat(129)]) {
      const { code, stderr } = await runKemari(["keygen", `${folder}/bad`, "--identity", identity]);
      assert.equal(code, 2, `${identity}: ${stderr}`);
    }
    assert.equal((await runKemari(["keygen", `${folder}/none/key`])).code, 4);
    assert.deepEqual([...Deno.readDirSync(folder)].map(({ name }) => name).sort(), [
      "key",
      "masked",
    ]);
  }));

Deno.test("a network is crossed with a key, with certificates, or with --plain: else exit 2, at once", async () => {
  const lines = [
    ["send", "192.0.2.1:1"],
    ["send", "tcp:[2001:db8::1]:1"],
    ["recv", "192.0.2.1:1"],
    ["recv", "0.0.0.0:1"],
    ["recv", "[::]:1"],
    ["protect", "192.0.2.1:1", "--qmp", "/nonexistent"],
  ];
  for (const words of lines) {
    const { code, stderr } = await runKemari(words);
    assert.equal(code, 2, `${words}: ${stderr}`);
    assert.match(stderr, /is reached over a network, and nothing encrypts this link\nhint: /);
    assert.match(stderr, /--key FILE \(kemari keygen makes one\) or --tls-dir DIR; or --plain/);
  }
});

Deno.test("options that exclude each other, and credentials that are none, are refused at once", () =>
  inFolder(async (folder) => {
    await keygen(`${folder}/key`);
    await Deno.writeTextFile(`${folder}/open`, Deno.readTextFileSync(`${folder}/key`));
    await Deno.chmod(`${folder}/open`, 0o644);
    const cases: readonly (readonly [string[], number, RegExp])[] = [
      [["--key", `${folder}/key`, "--plain"], 2, /--key and --plain exclude each other/],
      [["--key", `${folder}/key`, "--tls-dir", folder], 2, /--key and --tls-dir exclude/],
      [["--tls-name", "a"], 2, /--tls-name is about certificates/],
      [["--key", `${folder}/none`], 4, /none: there is no such file/],
      [["--key", `${folder}/open`], 4, /open: others may read .*\(mode 0644\)\nhint: chmod 600/],
      [["--tls-dir", folder], 4, /ca-cert.pem: there is no such file/],
    ];
    for (const [words, wanted, said] of cases) {
      for (const command of [["send", "127.0.0.1:1"], ["recv", "127.0.0.1:0"]]) {
        const { code, stderr } = await runKemari([...command, ...words]);
        assert.equal(code, wanted, `${command} ${words}: ${stderr}`);
        assert.match(stderr, said);
      }
    }
    // Nobody but the other end would know whose certificate to expect.
    const unnamed = await runKemari(["send", `unix:${folder}/s`, "--tls-dir", folder]);
    assert.equal(unnamed.code, 2);
    assert.match(unnamed.stderr, /no host's name .*\nhint: give the name .* --tls-name/);
  }));

Deno.test("a VM goes over a link with a key, and kemari status tells how it is encrypted", () =>
  inFolder(async (folder) => {
    await keygen(`${folder}/key`);
    const key = ["--key", `${folder}/key`];
    await using recv = new KemariProcess(
      ["recv", "127.0.0.1:0", "--control", `${folder}/c`, ...key],
    );
    const address = await recv.listening();
    await using sender = new KemariProcess(["send", address, ...key], { stdin: "piped" });
    await sender.write(STREAM.subarray(0, 200_000));
    await recv.waitFor(/sender connected/);
    const { stdout } = await runKemari(["status", `${folder}/c`]);
    assert.match(
      stdout,
      /^encryption +TLS_(AES_128_GCM|CHACHA20_POLY1305)_SHA256, by OpenSSL, not by the kernel; peer kemari$/m,
    );
    const { encryption } = JSON.parse(
      (await runKemari(["status", `${folder}/c`, "--json"])).stdout,
    );
    assert.deepEqual([encryption.kind, encryption.peer, encryption.inKernel], [
      "tls",
      "kemari",
      false,
    ]);
    await sender.write(STREAM.subarray(200_000));
    await sender.closeStdin();
    assert.equal((await sender.ended()).code, 0);
    const ended = await recv.ended();
    assert.equal(ended.code, 0);
    assert.deepEqual(vmStateOf(ended.stdout), vmStateOf(STREAM));
    const secret = Deno.readTextFileSync(`${folder}/key`).split(":")[1].trim();
    assert.ok(!ended.stderr.includes(secret) && !stdout.includes(secret));
  }));

Deno.test("a VM goes over a link with certificates, also through a command's pipes", () =>
  inFolder(async (folder) => {
    const authority = await TestAuthority.make(`${folder}/ca`);
    const pki = await authority.issue(`${folder}/pki`, { usage: "client", names: "DNS:host1" });
    await authority.issue(pki, { usage: "server" });
    const tls = ["--tls-dir", pki];
    await using recv = new KemariProcess(["recv", "127.0.0.1:0", ...tls, "--tls-name", "host1"]);
    const sent = await send(await recv.listening(), ...tls);
    assert.equal(sent.code, 0, sent.stderr);
    assert.deepEqual(vmStateOf((await recv.ended()).stdout), vmStateOf(STREAM));

    const words = [Deno.execPath(), "run", "-A", "--no-check", "--quiet"].join(" ");
    const main = new URL("../../main.ts", import.meta.url).pathname;
    const exec = `exec:${words} ${main} recv stdio: --tls-dir ${pki} --exec 'cat > ${folder}/vm'`;
    const piped = await send(exec, ...tls, "--tls-name", "localhost");
    assert.equal(piped.code, 0, piped.stderr);
    assert.deepEqual(vmStateOf(Deno.readFileSync(`${folder}/vm`)), vmStateOf(STREAM));
  }));

/** What goes wrong between two ends, and what each says of it; the sender ends with 4. */
interface Mismatch {
  readonly what: string;
  readonly sender: readonly string[];
  readonly receiver: readonly string[];
  readonly atSender: RegExp;
  readonly atReceiver: RegExp;
}

Deno.test("ends that do not fit together: the sender's exit 4, what each says, and recv waits on", () =>
  inFolder(async (folder) => {
    for (const name of ["key", "other"]) await keygen(`${folder}/${name}`);
    await keygen(`${folder}/named`, "--identity", "another");
    const ours = await TestAuthority.make(`${folder}/ours`);
    const theirs = await TestAuthority.make(`${folder}/theirs`);
    const server = await ours.issue(`${folder}/server`, { usage: "server" });
    const client = await ours.issue(`${folder}/client`, { usage: "client" });
    const away = await ours.issue(`${folder}/away`, { usage: "server", names: "DNS:host9" });
    const foreign = await theirs.issue(`${folder}/foreign`, { usage: "client" });
    const key = ["--key", `${folder}/key`];
    const cases: readonly Mismatch[] = [
      {
        what: "the wrong key",
        sender: ["--key", `${folder}/other`],
        receiver: key,
        atSender: /the secondary's key "kemari" is another one\nhint: give both ends/,
        atReceiver: /the sender's key "kemari" is not the one here/,
      },
      {
        what: "another identity",
        sender: ["--key", `${folder}/named`],
        receiver: key,
        atSender: /the secondary knows no key "another"\nhint: /,
        atReceiver: /the sender says a key "another", which is not here/,
      },
      {
        what: "a plain sender",
        sender: [],
        receiver: key,
        atSender: /the secondary closed the connection\nhint: .*same --key, --tls-dir or --plain/,
        atReceiver: /the sender speaks no TLS/,
      },
      {
        what: "a plain receiver",
        sender: key,
        receiver: [],
        atSender: /the secondary speaks no TLS\nhint: /,
        atReceiver: /the peer speaks TLS, and this end does not/,
      },
      {
        what: "another authority",
        sender: ["--tls-dir", foreign],
        receiver: ["--tls-dir", server],
        atSender: /the secondary's certificate is not from our authority/,
        atReceiver: /the sender refuses our certificate: it is not from its authority/,
      },
      {
        what: "another name",
        sender: ["--tls-dir", client],
        receiver: ["--tls-dir", away],
        atSender: /the secondary's certificate bears another name\nhint: .*--tls-name/,
        atReceiver: /the sender refuses our certificate/,
      },
    ];
    for (const { what, sender, receiver, atSender, atReceiver } of cases) {
      await using recv = new KemariProcess(["recv", "127.0.0.1:0", ...receiver]);
      const { code, stderr } = await send(await recv.listening(), ...sender);
      assert.equal(code, 4, `${what}: ${stderr}`);
      assert.match(stderr, atSender, what);
      await recv.waitFor(atReceiver);
      assert.equal(recv.stdoutBytes, 0);
      recv.signal("SIGTERM");
      assert.equal((await recv.ended()).code, 130);
    }
  }));

Deno.test("another implementation: TLS 1.3 with the key is let in, TLS 1.2 is not, at either end", () =>
  inFolder(async (folder) => {
    await keygen(`${folder}/key`);
    const psk = Deno.readTextFileSync(`${folder}/key`).split(":")[1].trim();
    const openssl = await ensureTool("openssl");
    const theirs = ["-psk_identity", "kemari", "-psk", psk];
    const run = (args: readonly string[], stdin: "null" | "piped") =>
      new Deno.Command(openssl, { args: [...args], stdin, stdout: "piped", stderr: "piped" });
    await using recv = new KemariProcess(["recv", "127.0.0.1:0", "--key", `${folder}/key`]);
    const address = await recv.listening();
    const connect = async (...version: string[]) => {
      const words = ["s_client", "-connect", address, ...version, ...theirs];
      const { stdout, stderr } = await run(words, "null").output();
      return new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
    };
    assert.match(await connect("-tls1_3"), /TLSv1\.3, Cipher is TLS_/);
    await recv.waitFor(/it has closed the connection before a HELLO/);
    assert.match(await connect("-tls1_2"), /alert protocol version/);

    const port = freePort();
    const words = ["s_server", "-accept", `127.0.0.1:${port}`, "-nocert", "-cipher", "PSK"];
    // It would end with its stdin.
    const server = run([...words, "-tls1_2", ...theirs], "piped").spawn();
    try {
      let sent = await send(`127.0.0.1:${port}`, "--key", `${folder}/key`);
      while (/connection refused/.test(sent.stderr)) {
        sent = await send(`127.0.0.1:${port}`, "--key", `${folder}/key`);
      }
      assert.equal(sent.code, 4, sent.stderr);
      assert.match(sent.stderr, /the secondary speaks no TLS 1\.3/);
    } finally {
      await server.stdin.close();
      server.kill();
      await server.output();
    }
  }));

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

Deno.test({
  name: "without OpenSSL: exit 4 and the package's name, for a key; a plain link needs none",
  ignore: Deno.uid() !== 0,
}, () =>
  inFolder(async (folder) => {
    await keygen(`${folder}/key`);
    const { stdout } = await new Deno.Command("ldconfig", { args: ["-p"] }).output();
    const library = /libssl\.so\.3 .*=> (\S+)/.exec(new TextDecoder().decode(stdout))?.[1];
    assert.ok(library, "this host has OpenSSL");
    // A namespace of its own, in which the library is an empty file.
    const hide = `mount --bind /dev/null '${library}' && exec "$@"`;
    const program = ["unshare", "-m", "sh", "-c", hide, "sh", ...FROM_SOURCE];
    const without = async (...words: string[]) => {
      await using kemari = new KemariProcess(words, { program });
      return await kemari.ended();
    };
    const refused = await without("send", "127.0.0.1:1", "--key", `${folder}/key`);
    assert.equal(refused.code, 4, refused.stderr);
    assert.match(refused.stderr, /libssl\.so\.3: OpenSSL 3\.0 or later, .*cannot be used/);
    assert.match(refused.stderr, /hint: install Debian's package libssl3 /);
    const plain = await without("send", "127.0.0.1:1");
    assert.equal(plain.code, 4);
    assert.match(plain.stderr, /connection refused/);
  }));
