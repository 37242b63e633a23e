/** `kemari send` and `kemari recv` as a shell sees them: everything that can go wrong between them. */
import assert from "node:assert/strict";
import { KemariProcess } from "../lab/program/kemari_process.ts";
import { loadStream } from "../lab/recording/streams.ts";
import { Carry } from "../bytes/carry.ts";
import { testFaults } from "./testing/send_recv_faults.ts";
import { TxnReceiver } from "../txn/receiver.ts";

const STREAM = loadStream("plain-7.2-bios");
/** Silence as long as this is waited for, and may not come by itself. */
const QUICK = ["--heartbeat", "50ms", "--grace", "1500ms"];

async function inFolder(body: (folder: string) => Promise<void>) {
  const folder = await Deno.makeTempDir({ prefix: "kemari-faults-" });
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Sends what is in `bytes` to an address; it ends by itself. */
async function sendBytes(bytes: Uint8Array, ...args: string[]) {
  await using send = new KemariProcess(["send", ...args], { stdin: "piped" });
  await send.write(bytes);
  await send.closeStdin();
  return await send.ended();
}

testFaults("", []);

Deno.test("nobody to send to: exit 4, which address, and what to do", () =>
  inFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/file`, "");
    const cases: [string, RegExp][] = [
      ["127.0.0.1:1", /127\.0\.0\.1:1: cannot connect: connection refused\nhint: is `kemari recv`/],
      [`unix:${folder}/none`, /cannot connect: no such file\nhint: /],
      [`unix:${folder}/file`, /cannot connect: .*\nhint: /],
      ["no-such-host.invalid:4000", /no such host: no-such-host\.invalid\nhint: /],
      ["exec:exit 3", /exec:exit 3: the command ended with exit code 3\nhint: /],
      ["exec:/no/such/program", /: the command ended with exit code 127\nhint: /],
    ];
    for (const [address, message] of cases) {
      const { code, stdout, stderr } = await sendBytes(new Uint8Array(0), address);
      assert.deepEqual([code, stdout.length], [4, 0], `${address}: ${stderr}`);
      assert.match(stderr, message);
    }
    for (
      const listen of ["no-such-host.invalid:4000", `unix:${folder}/none/s`, `unix:${folder}/file`]
    ) {
      const { code, stderr } = await new KemariProcess(["recv", listen]).ended();
      assert.equal(code, 4, stderr);
    }
    assert.equal(Deno.statSync(`${folder}/file`).isFile, true);
  }));

Deno.test("a port that is taken, a socket that is alive, a socket left behind", () =>
  inFolder(async (folder) => {
    await using first = new KemariProcess(["recv", "127.0.0.1:0", "--control", `${folder}/c`]);
    const address = await first.listening();
    const taken = await new KemariProcess(["recv", address]).ended();
    assert.equal(taken.code, 4);
    assert.match(taken.stderr, /address already in use\nhint: choose another port/);
    const second = await new KemariProcess(["recv", "127.0.0.1:0", "--control", `${folder}/c`])
      .ended();
    assert.equal(second.code, 4);
    assert.match(second.stderr, /another process listens there/);
    // The one that lives was not disturbed.
    const status = new KemariProcess(["failover", `${folder}/c`]);
    const none = await status.ended();
    assert.equal(none.code, 4);
    assert.match(none.stderr, /nothing to activate: no transaction is committed\nhint: /);
    first.signal("SIGKILL");
    await first.ended();
    assert.ok(Deno.statSync(`${folder}/c`).isSocket);
    await using third = new KemariProcess(["recv", "127.0.0.1:0", "--control", `${folder}/c`]);
    await third.listening();
    third.signal("SIGTERM");
    assert.equal((await third.ended()).code, 130);
    assert.deepEqual([...Deno.readDirSync(folder)], []);
  }));

Deno.test("HTTP, silence, and a server of something else", () =>
  inFolder(async (folder) => {
    await using recv = new KemariProcess(["recv", "127.0.0.1:0", "--on-loss", "exit", ...QUICK]);
    const address = await recv.listening();
    await assert.rejects(fetch(`http://${address}/`));
    await recv.waitFor(/not a sender's: .*does not speak kemari: .*0x4745/);
    const [hostname, port] = address.split(":");
    using _silent = await Deno.connect({ hostname, port: Number(port) });
    // A peer that says nothing is no sender, and keeps none out.
    assert.equal((await sendBytes(STREAM, address)).code, 0);
    assert.equal((await recv.ended()).code, 0);

    using server = Deno.listen({ transport: "unix", path: `${folder}/s` });
    const answering = (async () => {
      using peer = await server.accept();
      await peer.write(new TextEncoder().encode("220 smtp.example.org ESMTP\r\n"));
      await peer.read(new Uint8Array(1000));
      using mute = await server.accept();
      while (await mute.read(new Uint8Array(1000)) !== null);
    })();
    const smtp = await sendBytes(STREAM, `unix:${folder}/s`);
    assert.equal(smtp.code, 3);
    assert.match(smtp.stderr, /the peer does not speak kemari: .*\nhint: /);
    const mute = await sendBytes(STREAM, `unix:${folder}/s`, ...QUICK);
    assert.equal(mute.code, 4);
    assert.match(mute.stderr, /nothing was heard from the secondary for \d+ ms\nhint: /);
    await answering;
  }));

Deno.test("recv stdio: ends with the connection when nobody can come back", async () => {
  await using recv = new KemariProcess(["recv", "stdio:", "--exec", "cat"], { stdin: "piped" });
  await recv.closeStdin();
  const { code, stderr } = await recv.ended();
  assert.equal(code, 4);
  assert.match(stderr, /stdio: the sender closed the connection/);
});

Deno.test("recv with a closed stdout does not take a VM that it would lose", () =>
  inFolder(async (folder) => {
    const closed = await new KemariProcess(["recv", `unix:${folder}/s`], { before: "exec >&-;" })
      .ended();
    assert.equal(closed.code, 2);
    assert.match(closed.stderr, /^kemari: stdout is closed: .*\nhint: pipe it into /);
    // Nobody wants this one's stream, and says so.
    await using recv = new KemariProcess(["recv", `unix:${folder}/s`], {
      stdout: { path: "/dev/null" },
    });
    await recv.listening();
    assert.equal((await sendBytes(STREAM, `unix:${folder}/s`)).code, 0);
    assert.equal((await recv.ended()).code, 0);
  }));

Deno.test("a hang-up ends an end as Ctrl-C does, unless it was started to outlive it", () =>
  inFolder(async (folder) => {
    const args = ["recv", `unix:${folder}/s`, "--control", `${folder}/c`];
    await using recv = new KemariProcess(args);
    await recv.listening();
    recv.signal("SIGHUP");
    const { code, stderr } = await recv.ended();
    assert.equal(code, 130);
    assert.match(stderr, /interrupted by SIGHUP/);
    assert.deepEqual([...Deno.readDirSync(folder)], []);

    await using stubborn = new KemariProcess(args, { before: "trap '' HUP;" });
    await stubborn.listening();
    stubborn.signal("SIGHUP");
    assert.equal((await sendBytes(STREAM, `unix:${folder}/s`)).code, 0);
    assert.equal((await stubborn.ended()).code, 0);
  }));

Deno.test("a handover that breaks off: the sender says that the VM may run at the secondary", () =>
  inFolder(async (folder) => {
    using server = Deno.listen({ transport: "unix", path: `${folder}/s` });
    const serving = (async () => {
      using peer = await server.accept();
      let over = false;
      const nothing = () => {};
      const receiver: TxnReceiver = new TxnReceiver(
        {
          heartbeatMs: 100,
          graceMs: 5000,
          maxTransactionBytes: 2 ** 30,
          committed: 0,
          software: "a receiver that dies on HANDOVER",
        },
        {
          hello: nothing,
          begin: nothing,
          payload: nothing,
          event: nothing,
          released: nothing,
          input: nothing,
          cancel: nothing,
          leave: nothing,
          digestQuery: nothing,
          diskQuery: nothing,
          commit: (transaction) => receiver.ack(transaction),
          handover: () => over = true,
        },
        0,
      );
      const carry = new Carry();
      const buffer = new Uint8Array(65536);
      while (!over) {
        const count = await peer.read(buffer);
        assert.ok(count !== null, "the sender stays until the end");
        carry.feed(buffer, 0, count, (bytes, at, end) => receiver.receive(bytes, at, end, 0));
        for (const piece of receiver.takeOutput()) {
          await peer.write(piece as Uint8Array<ArrayBuffer>);
        }
      }
    })();
    const { code, stderr } = await sendBytes(STREAM, `unix:${folder}/s`);
    assert.equal(code, 4, stderr);
    assert.match(
      stderr,
      /the handover broke off before it was acknowledged, so the secondary may run/,
    );
    assert.match(
      stderr,
      /hint: do not start the VM anywhere before you have looked at the secondary/,
    );
    await serving;
  }));
