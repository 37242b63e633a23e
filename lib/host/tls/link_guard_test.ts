import assert from "node:assert/strict";
import { configure, type LogRecord, reset } from "@logtape/logtape";
import type { LinkSecurity } from "../../decisions/link_security.ts";
import { TransportError, UsageError } from "../../errors.ts";
import { makeKeyFile } from "../keygen.ts";
import { parseAddress } from "../system/address.ts";
import { libc } from "../system/libc.ts";
import { never } from "../system/never.ts";
import { Reactor } from "../system/reactor.ts";
import { openLibssl } from "./libssl.ts";
import { LinkGuard } from "./link_guard.ts";
import { TestAuthority } from "./testing/test_certificates.ts";
import { onSocket, socketPair, TestEnd } from "./testing/tls_pair.ts";
import type { TlsRole } from "./tls_context.ts";

const PLAIN: LinkSecurity = { kind: "plain", crossesNetworks: false };
const ANYWHERE = parseAddress("localhost:1");

class Folder implements Disposable {
  readonly path = Deno.makeTempDirSync({ prefix: "kemari-guard-" });

  key(name = "key"): string {
    makeKeyFile(`${this.path}/${name}`, "kemari");
    return `${this.path}/${name}`;
  }
  [Symbol.dispose](): void {
    Deno.removeSync(this.path, { recursive: true });
  }
}

/** What is logged meanwhile, as text. */
async function logged(act: (lines: string[]) => void | Promise<void>): Promise<string[]> {
  const lines: string[] = [];
  const sink = ({ level, message }: LogRecord) => lines.push(`${level}: ${message.join("")}`);
  await configure({
    reset: true,
    sinks: { sink },
    loggers: [{ category: "kemari", lowestLevel: "debug", sinks: ["sink"] }, {
      category: ["logtape", "meta"],
      lowestLevel: "fatal",
      sinks: ["sink"],
    }],
  });
  try {
    await act(lines);
  } finally {
    await reset();
  }
  return lines;
}

/** Lets two guards' ends meet. @returns What the receiver heard, or why not. */
async function meet(sender: LinkGuard, receiver: LinkGuard): Promise<string> {
  const reactor = new Reactor();
  const [left, right] = socketPair();
  const ends = [
    new TestEnd(reactor, receiver.transport(onSocket(right, "recv"))),
    new TestEnd(reactor, sender.transport(onSocket(left, "send"))),
  ];
  ends[1].say("HELLO");
  await reactor.run(() => ends[0].text === "HELLO" || ends[0].isOver, never);
  for (const end of ends) end.close();
  reactor.close();
  return ends[0].error === undefined ? ends[0].text : (ends[0].error as Error).message;
}

function refusal(act: () => unknown): TransportError {
  try {
    act();
  } catch (error) {
    assert.ok(error instanceof TransportError, `${error}`);
    assert.equal(error.exitCode, 4);
    return error;
  }
  assert.fail("it was not refused");
}

Deno.test("a plain link is let through where it stays on this host, or somebody has said --plain", () => {
  const plain = LinkGuard.open(PLAIN, "sender", ANYWHERE);
  const said = LinkGuard.open({ kind: "plain", crossesNetworks: true }, "sender", ANYWHERE);
  const [loopback, beyond] = [Uint8Array.of(127, 0, 0, 1), Uint8Array.of(192, 0, 2, 1)];
  plain.admit(loopback, "it");
  said.admit(loopback, "it");
  said.admit(beyond, "it");
  assert.throws(() => plain.admit(beyond, "host:1"), (error) => {
    assert.ok(error instanceof UsageError);
    assert.match(
      error.message,
      /^host:1 is reached over a network, and nothing encrypts this link/,
    );
    assert.match(error.hint!, /--key FILE .*--tls-dir DIR.*--plain/);
    return true;
  });
});

Deno.test("a target is looked at by its name, and one that is not known yet is let through", async () => {
  const guard = LinkGuard.open(PLAIN, "sender", ANYWHERE);
  const look = (text: string) => guard.admitTarget(parseAddress(text), never);
  for (const text of ["localhost:1", "[::1]:1", "127.9.9.9:1", "unix:/s", "exec:x", "stdio:"]) {
    await look(text);
  }
  await look("no-such-host.invalid:1");
  for (const text of ["192.0.2.1:1", "[2001:db8::1]:1", ":1"]) {
    await assert.rejects(look(text), UsageError, text);
  }
});

Deno.test("a key file that is not there, not a secret, or none is refused before anything is done", () => {
  using folder = new Folder();
  const open = (file: string) => () => LinkGuard.open({ kind: "key", file }, "sender", ANYWHERE);
  const key = folder.key();
  open(key)();
  for (const mode of [0o640, 0o604, 0o620, 0o644, 0o660]) {
    Deno.chmodSync(key, mode);
    const error = refusal(open(key));
    assert.match(error.message, /others may read or change this secret \(mode 06\d\d\)/);
    assert.match(error.hint!, /chmod 600/);
  }
  Deno.chmodSync(key, 0o400);
  open(key)();
  assert.match(refusal(open(`${folder.path}/none`)).message, /there is no such file/);
  assert.match(refusal(open(folder.path)).message, /it is no file/);
  Deno.writeTextFileSync(`${folder.path}/empty`, "", { mode: 0o600 });
  assert.match(refusal(open(`${folder.path}/empty`)).message, /it holds no key/);
});

Deno.test({
  name: "a key file that another user could change is refused",
  ignore: Deno.uid() !== 0,
}, () => {
  using folder = new Folder();
  const file = folder.key();
  Deno.chownSync(file, 12345, 0);
  const open = () => LinkGuard.open({ kind: "key", file }, "receiver", ANYWHERE);
  assert.match(refusal(open).message, /belongs to another user \(12345\)/);
});

Deno.test("a new key takes no restart, and an old one is good for nothing from then on", async () => {
  using folder = new Folder();
  const [file, next] = [folder.key(), folder.key("next")];
  const guard = (role: TlsRole) => LinkGuard.open({ kind: "key", file }, role, ANYWHERE);
  const [sender, receiver, late] = [guard("sender"), guard("receiver"), guard("sender")];
  assert.equal(await meet(sender, receiver), "HELLO");
  const lines = await logged(async () => {
    // What a receiver is given first, so that no moment is without a key: both.
    Deno.writeTextFileSync(
      `${folder.path}/both`,
      Deno.readTextFileSync(file) + Deno.readTextFileSync(next).replace(/^kemari/, "new"),
      { mode: 0o600 },
    );
    Deno.renameSync(`${folder.path}/both`, file);
    assert.equal(await meet(sender, receiver), "HELLO");
    Deno.renameSync(next, file);
    assert.equal(await meet(sender, receiver), "HELLO");
  });
  assert.ok(lines.some((line) => /key has changed/.test(line)), lines.join("\n"));
  Deno.writeTextFileSync(file, "kemari:00112233445566778899aabbccddeeff\n");
  const old = late;
  assert.equal(await meet(old, receiver), "HELLO", "a sender reads its file anew, too");
});

Deno.test("credentials that cannot be read any more let nobody in, and take no descriptor with them", () => {
  using folder = new Folder();
  const file = folder.key();
  const receiver = LinkGuard.open({ kind: "key", file }, "receiver", ANYWHERE);
  Deno.removeSync(file);
  const before = [...Deno.readDirSync("/proc/self/fd")].length;
  const [left, right] = socketPair();
  assert.match(
    refusal(() => receiver.transport(onSocket(right, "recv"))).message,
    /there is no such file/,
  );
  libc().close(left);
  assert.equal([...Deno.readDirSync("/proc/self/fd")].length, before);
});

Deno.test("a certificate that ends within 30 days is told of, when it is read and from day to day", async () => {
  using folder = new Folder();
  const ca = await TestAuthority.make(`${folder.path}/ca`);
  const pki = await ca.issue(`${folder.path}/pki`, { usage: "client", toDays: 29.5 });
  await ca.issue(pki, { usage: "server", toDays: 31 });
  const security = { kind: "certificates", folder: pki, names: [] } as const;
  const open = (role: TlsRole) => LinkGuard.open(security, role, ANYWHERE);
  const lines = await logged(() => void open("sender"));
  assert.equal(lines.length, 1, lines.join("\n"));
  assert.match(lines[0], /^warning: .*client-cert.pem: this certificate expires in 29 days/);
  assert.deepEqual(await logged(() => void open("receiver")), []);
  // Renewed, and read at the next connection.
  const [sender, receiver] = [open("sender"), open("receiver")];
  await ca.issue(pki, { usage: "client", toDays: 60 });
  const renewed = await logged(async () => assert.equal(await meet(sender, receiver), "HELLO"));
  assert.ok(renewed.some((line) => /has changed/.test(line)), renewed.join("\n"));
  assert.ok(!renewed.some((line) => /expires/.test(line)), renewed.join("\n"));
});

Deno.test("between two connections the credentials are looked at, and what is wrong is told", async () => {
  using folder = new Folder();
  const file = folder.key();
  const guard = LinkGuard.open({ kind: "key", file }, "sender", ANYWHERE);
  const reactor = new Reactor();
  const lines = await logged(async (said) => {
    guard.keepLooking(reactor, 1);
    Deno.removeSync(file);
    await reactor.run(() => said.length > 0, never);
  });
  reactor.close();
  assert.match(lines[0], /^warning: no new connection can be made: .*there is no such file/);
});

Deno.test("a sender whose target has no host has to be told whom to expect", () => {
  const security = { kind: "certificates", folder: "/nonexistent", names: [] } as const;
  const open = (text: string, role: TlsRole, names: readonly string[] = []) => () =>
    LinkGuard.open({ ...security, names }, role, parseAddress(text));
  assert.throws(open("exec:x", "sender"), UsageError);
  assert.throws(open("unix:/s", "sender"), UsageError);
  for (const known of [open("exec:x", "sender", ["host2"]), open("unix:/s", "receiver")]) {
    assert.match(refusal(known).message, /there is no such file/);
  }
});

Deno.test("without OpenSSL 3 a link that is to be encrypted is refused, and the package is named", () => {
  for (
    const names of [
      { ssl: "libssl.so.99", crypto: "libcrypto.so.3" },
      { ssl: "libssl.so.3", crypto: "libcrypto.so.99" },
      // One that has not these functions: too old, or something else.
      { ssl: "libc.so.6", crypto: "libc.so.6" },
    ]
  ) {
    const error = refusal(() => openLibssl(names));
    assert.equal(error.party, "host");
    assert.match(error.message, /OpenSSL 3.0 or later, .*cannot be used/);
    assert.match(error.hint!, /Debian's package libssl3 .*libssl3t64/);
  }
});
