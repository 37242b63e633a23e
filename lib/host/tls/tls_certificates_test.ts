import assert from "node:assert/strict";
import { TransportError } from "../../errors.ts";
import { certificateFiles, checkCertificates } from "./certificate_files.ts";
import { TestAuthority } from "./testing/test_certificates.ts";
import { type TestEnd, TlsPair } from "./testing/tls_pair.ts";
import { TlsContext } from "./tls_context.ts";
import { TlsTransport } from "./tls_transport.ts";

/** Two authorities, and a folder for everything. */
class Scene implements AsyncDisposable {
  private constructor(
    readonly folder: string,
    readonly ours: TestAuthority,
    readonly theirs: TestAuthority,
  ) {}

  static async make(): Promise<Scene> {
    const folder = await Deno.makeTempDir({ prefix: "kemari-ca-" });
    return new Scene(
      folder,
      await TestAuthority.make(`${folder}/ours`),
      await TestAuthority.make(`${folder}/theirs`),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.folder, { recursive: true });
  }
}

interface Ends {
  readonly client: string;
  readonly server: string;
  /** What each expects of the other. */
  readonly clientNames?: readonly string[];
  readonly serverNames?: readonly string[];
}

/** Says something both ways, until both have heard it or one is lost. */
async function talk({ client, server, clientNames, serverNames }: Ends) {
  const sender = TlsContext.ofCertificates("sender", certificateFiles(client, "sender"));
  const receiver = TlsContext.ofCertificates("receiver", certificateFiles(server, "receiver"));
  await using both = new TlsPair({
    sender: (on) => new TlsTransport(on, sender, { names: clientNames ?? ["localhost"] }),
    receiver: (on) => new TlsTransport(on, receiver, { names: serverNames ?? [] }),
  });
  both.sender.say("HELLO");
  both.receiver.say("hello");
  const isDone = (end: TestEnd) => end.isOver || end.heard.length === 5;
  await both.until(() => isDone(both.sender) && isDone(both.receiver));
  // TLS 1.3 lets a client finish before the server has looked at its certificate.
  if (both.receiver.error !== undefined) await both.until(() => both.sender.isOver);
  sender.free();
  receiver.free();
  return {
    sender: both.sender.error,
    receiver: both.receiver.error,
    heard: both.receiver.text,
    peers: [both.sender, both.receiver].map(({ transport }) =>
      transport.encryption.kind === "tls" ? transport.encryption.peer : undefined
    ),
  };
}

function assertLost(error: unknown, words: RegExp): void {
  assert.ok(error instanceof TransportError, `${error}`);
  assert.deepEqual(
    [error.party, error.exitCode, error.phase],
    ["peer", 4, "handshake"],
    `${error}`,
  );
  assert.match(error.message, words);
}

Deno.test("certificates of one authority open the link, and say whose they are", async () => {
  await using scene = await Scene.make();
  const { ours, folder } = scene;
  const pki = await ours.issue(`${folder}/pki`, { usage: "client", names: "DNS:host1" });
  await ours.issue(pki, { usage: "server", names: "DNS:host2,IP:192.0.2.7" });
  checkCertificates(certificateFiles(pki, "sender"));
  checkCertificates(certificateFiles(pki, "receiver"));
  for (const name of ["host2", "192.0.2.7"]) {
    const said = await talk({ client: pki, server: pki, clientNames: [name] });
    assert.deepEqual(said, {
      sender: undefined,
      receiver: undefined,
      heard: "HELLO",
      peers: ["/CN=server", "/CN=client"],
    });
  }
  const named = { client: pki, server: pki, clientNames: ["host2"] };
  const let1 = await talk({ ...named, serverNames: ["host3", "host1"] });
  assert.deepEqual([let1.sender, let1.receiver], [undefined, undefined]);
});

Deno.test("a certificate that is not what it has to be is refused, and both ends say why", async () => {
  await using scene = await Scene.make();
  const { ours, theirs, folder } = scene;
  let count = 0;
  const issue = (wanted: Parameters<TestAuthority["issue"]>[1], by = ours) =>
    by.issue(`${folder}/case-${++count}`, wanted);
  const client = await issue({ usage: "client" });
  const server = await issue({ usage: "server" });
  const cases: readonly (readonly [what: string, ends: Ends, sender: RegExp, receiver: RegExp])[] =
    [
      [
        "an expired server",
        { client, server: await issue({ usage: "server", fromDays: -9, toDays: -1 }) },
        /the secondary's certificate has expired/,
        /the sender refuses our certificate: it has expired/,
      ],
      [
        "a server that is not yet valid",
        { client, server: await issue({ usage: "server", fromDays: 2 }) },
        /the secondary's certificate is not yet valid/,
        /the sender refuses our certificate/,
      ],
      [
        "an expired client",
        { client: await issue({ usage: "client", fromDays: -9, toDays: -1 }), server },
        /the secondary refuses our certificate: it has expired/,
        /the sender's certificate has expired/,
      ],
      [
        "a server of another name",
        { client, server, clientNames: ["host9"] },
        /the secondary's certificate bears another name/,
        /the sender refuses our certificate/,
      ],
      [
        "a server of another address",
        { client, server, clientNames: ["192.0.2.1"] },
        /the secondary's certificate bears another name/,
        /the sender refuses our certificate/,
      ],
      [
        "a client that is not on the list",
        { client, server, serverNames: ["host1"] },
        /the secondary refuses our certificate/,
        /the sender's certificate bears another name/,
      ],
      [
        "a server of another authority",
        { client, server: await issue({ usage: "server" }, theirs) },
        /the secondary's certificate is not from our authority/,
        /the sender refuses our certificate: it is not from its authority/,
      ],
      [
        "a client that passes for a server",
        { client, server: await disguised(await issue({ usage: "client" })) },
        /the secondary's certificate is not for this end/,
        /the sender refuses our certificate/,
      ],
    ];
  for (const [what, ends, sender, receiver] of cases) {
    const said = await talk(ends);
    assert.equal(said.heard, "", what);
    assertLost(said.sender, sender);
    assertLost(said.receiver, receiver);
  }
});

/** A client's certificate by a server's name. */
async function disguised(folder: string): Promise<string> {
  for (const what of ["cert", "key"]) {
    await Deno.rename(`${folder}/client-${what}.pem`, `${folder}/server-${what}.pem`);
  }
  return folder;
}

Deno.test("a certificate that was revoked is refused by whoever has been told", async () => {
  await using scene = await Scene.make();
  const { ours, folder } = scene;
  const stolen = await ours.issue(`${folder}/stolen`, { usage: "client" });
  const honest = await ours.issue(`${folder}/honest`, { usage: "client" });
  const server = await ours.issue(`${folder}/server`, { usage: "server" });
  assert.equal((await talk({ client: stolen, server })).heard, "HELLO");
  await ours.revoke(`${stolen}/client-cert.pem`, server);
  const said = await talk({ client: stolen, server });
  assertLost(said.receiver, /the sender's certificate was revoked/);
  assertLost(said.sender, /the secondary refuses our certificate: it was revoked/);
  assert.equal((await talk({ client: honest, server })).heard, "HELLO");
});

Deno.test("a sender with a key, and a receiver with certificates, do not come together", async () => {
  await using scene = await Scene.make();
  const { ours, folder } = scene;
  const pki = await ours.issue(`${folder}/pki`, { usage: "server" });
  await ours.issue(pki, { usage: "client" });
  const keys = [{ identity: "kemari", key: new Uint8Array(32).fill(1) }];
  const of = (role: "sender" | "receiver", by: "key" | "certificate") =>
    by === "key"
      ? TlsContext.ofKeys(role, keys)
      : TlsContext.ofCertificates(role, certificateFiles(pki, role));
  for (const [left, right] of [["key", "certificate"], ["certificate", "key"]] as const) {
    const sender = of("sender", left);
    const receiver = of("receiver", right);
    await using both = new TlsPair({
      sender: (on) => new TlsTransport(on, sender),
      receiver: (on) => new TlsTransport(on, receiver),
    });
    both.sender.say("HELLO");
    await both.until(() => both.sender.isOver && both.receiver.isOver);
    assert.equal(both.receiver.heard.length, 0);
    assertLost(both.sender.error, /./);
    assertLost(both.receiver.error, /./);
    sender.free();
    receiver.free();
  }
});

Deno.test("our own certificates are looked at before they are used", async () => {
  await using scene = await Scene.make();
  const { ours, theirs, folder } = scene;
  const good = await ours.issue(`${folder}/good`, { usage: "client" });
  const check = (pki: string) => {
    checkCertificates(certificateFiles(pki, "sender"));
    TlsContext.ofCertificates("sender", certificateFiles(pki, "sender")).free();
  };
  const cases: readonly (readonly [(pki: string) => Promise<void>, RegExp])[] = [
    [(pki) => Deno.remove(`${pki}/ca-cert.pem`), /ca-cert.pem: there is no such file/],
    [(pki) => Deno.remove(`${pki}/client-key.pem`), /client-key.pem: there is no such file/],
    [(pki) => Deno.chmod(`${pki}/client-key.pem`, 0o640), /client-key.pem: others may read/],
    [
      (pki) => Deno.writeTextFile(`${pki}/client-cert.pem`, "none\n"),
      /client-cert.pem: this is no certificate/,
    ],
    [
      (pki) => Deno.writeTextFile(`${pki}/client-key.pem`, "none\n"),
      /client-key.pem: OpenSSL cannot use it/,
    ],
    [
      async (pki) => {
        await theirs.issue(`${folder}/other`, { usage: "client" });
        await Deno.copyFile(`${folder}/other/client-key.pem`, `${pki}/client-key.pem`);
      },
      /client-key.pem: OpenSSL cannot use it: key values mismatch/,
    ],
    [
      (pki) => Deno.writeTextFile(`${pki}/ca-crl.pem`, "none\n"),
      /ca-crl.pem: OpenSSL cannot use it/,
    ],
    [
      async (pki) => {
        await ours.issue(pki, { usage: "client", fromDays: -9, toDays: -1 });
      },
      /client-cert.pem: this certificate has expired/,
    ],
    [
      async (pki) => {
        await ours.issue(pki, { usage: "client", fromDays: 1 });
      },
      /client-cert.pem: this certificate is not yet valid/,
    ],
  ];
  for (const [i, [spoil, words]] of cases.entries()) {
    const pki = `${folder}/bad-${i}`;
    await Deno.mkdir(pki);
    for (const { name } of Deno.readDirSync(good)) {
      await Deno.copyFile(`${good}/${name}`, `${pki}/${name}`);
    }
    check(pki);
    await spoil(pki);
    assert.throws(() => check(pki), (error) => {
      assert.ok(error instanceof TransportError, `${error}`);
      assert.deepEqual([error.exitCode, error.party], [4, "user"]);
      assert.match(error.message, words);
      return true;
    });
  }
});
