import assert from "node:assert/strict";
import { EARLY_RECEIVER, EARLY_SENDER, PROTECT, SENDER } from "../../control/testing/statuses.ts";
import { InterruptedError, RelayedError, TransportError, WireError } from "../../errors.ts";
import { askDurations, askFailover, askProtection, askStatus } from "./ask_control.ts";
import { type ControlHandlers, ControlServer } from "./control_server.ts";
import type { AttachRequest } from "../../control/attach_request.ts";
import { isUnread } from "./channel.ts";
import {
  openSocketPair,
  receiveWithDescriptors,
  sendWithDescriptors,
} from "./descriptor_passing.ts";
import { libc } from "./libc.ts";
import { Reactor } from "./reactor.ts";
import { connectSocket } from "./socket.ts";
import { until } from "../../lab/program/until.ts";
import { never } from "./never.ts";
import { delay } from "./delay.ts";

Deno.test("only who runs kemari may use its control socket, whatever the umask", async () => {
  const folder = await Deno.makeTempDir({ prefix: "kemari-control-" });
  const reactor = new Reactor();
  for (const umask of [0o000, 0o022, 0o777]) {
    const before = Deno.umask(umask);
    let server: ControlServer;
    try {
      const handlers = { status: () => EARLY_SENDER };
      server = await ControlServer.open(`${folder}/c`, handlers, reactor, never);
    } finally {
      Deno.umask(before);
    }
    assert.equal(Deno.statSync(`${folder}/c`).mode! & 0o777, 0o600);
    server.close();
  }
  reactor.close();
  await Deno.remove(folder);
});

/** Serves the handlers on a socket for as long as `body` runs. */
async function serving(handlers: ControlHandlers, body: (path: string) => Promise<void>) {
  const reactor = new Reactor();
  const folder = await Deno.makeTempDir({ prefix: "kemari-control-" });
  const path = `${folder}/c`;
  const server = await ControlServer.open(path, handlers, reactor, never);
  try {
    await reactor.during(body(path), never);
  } finally {
    server.close();
    reactor.close();
    assert.deepEqual([...Deno.readDirSync(folder)], []);
    await Deno.remove(folder);
  }
}

/** Writes raw text and takes what comes back until `lines` lines are there, or the end. */
async function talk(path: string, text: string, lines: number): Promise<string> {
  using connection = await Deno.connect({ transport: "unix", path });
  await connection.write(new TextEncoder().encode(text));
  let heard = "";
  const buffer = new Uint8Array(65536);
  while (heard.split("\n").length <= lines) {
    const count = await connection.read(buffer).catch(() => null);
    if (count === null) break;
    heard += new TextDecoder().decode(buffer.subarray(0, count));
  }
  return heard;
}

/** A status that takes several reads. */
const LONG = {
  ...SENDER,
  taps: { ...SENDER.taps!, disks: Array.from({ length: 1000 }, () => SENDER.taps!.disks[0]) },
};

Deno.test("each request line gets its answer line", () =>
  serving({ status: () => LONG }, async (path) => {
    const status = await askStatus(path, never);
    assert.ok(status.role === "sender");
    assert.deepEqual(status, LONG);
    await assert.rejects(askFailover(path, { signal: never }), (error) => {
      assert.ok(error instanceof RelayedError && error.exitCode === 4);
      return /this end is a sender/.test(error.message);
    });
    await assert.rejects(askDurations(path, never), /no such command: durations/);
    const two = '{"command":"none"}\n';
    assert.match(await talk(path, two, 1), /^\{"error":"no such command: none"\}\n$/);
    assert.match(await talk(path, "GET / HTTP/1.1\r\n\r\n", 1), /the request is not JSON/);
    assert.match(await talk(path, "null\n", 1), /no such command: undefined/);
    assert.match(
      await talk(path, '{"command":"failover","stale":1}\n', 1),
      /^\{"error":".*stale must be true or false, and is 1 \(bad-value\)","exitCode":3\}\n$/,
    );
    const both = await talk(path, two + two, 2);
    assert.equal(both, '{"error":"no such command: none"}\n'.repeat(2));
  }));

Deno.test("a request without an end, and clients that go, do no harm", () =>
  serving({ status: () => EARLY_SENDER }, async (path) => {
    assert.equal(await talk(path, "x".repeat(50_000), 1), "");
    for (let i = 0; i < 20; i++) {
      const connection = await Deno.connect({ transport: "unix", path });
      await connection.write(new TextEncoder().encode('{"command":"status"}\n'));
      connection.close();
    }
    assert.deepEqual(await askStatus(path, never), EARLY_SENDER);
  }));

Deno.test("failover answers when it is done, with its error and hint if it failed", async () => {
  let calls = 0;
  const stales: boolean[] = [];
  const failover = async (stale: boolean) => {
    stales.push(stale);
    await delay(30);
    if (++calls === 1) throw new TransportError("--fence", "spawn", "failed", { hint: "look" });
  };
  await serving({ status: () => EARLY_RECEIVER, failover }, async (path) => {
    const failed = '{"error":"--fence: failed","hint":"look","exitCode":4}\n';
    assert.equal(await talk(path, '{"command":"failover"}\n', 1), failed);
    assert.equal(await talk(path, '{"command":"failover"}\n', 1), '{"ok":true}\n');
    await askFailover(path, { stale: true, signal: never });
    // Whoever asked has gone meanwhile.
    await talk(path, '{"command":"failover"}\n', 0);
    await delay(60);
    await askFailover(path, { signal: never });
  });
  assert.deepEqual(stales, [false, false, true, false, false]);
});

Deno.test("protect is handed what was asked for, and hears when whoever asks has gone", async () => {
  let heard: unknown;
  let isGone = false;
  const protect: ControlHandlers["protect"] = async (request, gone) => {
    heard = request;
    await new Promise((resolve) => gone.addEventListener("abort", resolve));
    isGone = true;
  };
  await serving({ status: () => EARLY_RECEIVER, protect }, async (path) => {
    const given = new AbortController();
    const asking = askProtection(path, PROTECT, given.signal);
    setTimeout(() => given.abort(new Error("enough")), 50);
    await assert.rejects(asking, /enough/);
    assert.deepEqual(heard, PROTECT);
    while (!isGone) await delay(5);
    const refused = await talk(path, '{"command":"protect","settings":{}}\n', 1);
    assert.match(refused, /the request to protect: software is missing .*"exitCode":3/);
  });
});

Deno.test("a server that says nothing, or does not stop, is given up", async () => {
  const folder = await Deno.makeTempDir({ prefix: "kemari-control-" });
  const path = `${folder}/c`;
  const listener = Deno.listen({ transport: "unix", path });
  const serving = (async () => {
    for (let asked = 0; asked < 2; asked++) {
      using mute = await listener.accept();
      // Its end is the asker's going.
      while (await mute.read(new Uint8Array(4096)).catch(() => null) !== null);
    }
    using endless = await listener.accept();
    const spaces = new Uint8Array(65536).fill(0x20);
    while (await endless.write(spaces).catch(() => 0) > 0);
  })();
  try {
    const gone = AbortSignal.abort(new InterruptedError("interrupted before it was asked"));
    await assert.rejects(askStatus(path, gone, 60_000), gone.reason);
    await assert.rejects(askStatus(path, never, 50), (error) => {
      assert.ok(error instanceof TransportError && error.hint !== undefined);
      return /no answer in 50 ms/.test(error.message);
    });
    await assert.rejects(askFailover(path, { signal: never }), (error) => {
      assert.ok(error instanceof WireError && error.fault === "too-large");
      return /no line break in 1048576 bytes/.test(error.message);
    });
  } finally {
    await serving;
    listener.close();
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("asking where there is no socket, and where its kemari has ended, is told apart", async () => {
  const folder = await Deno.makeTempDir({ prefix: "kemari-control-" });
  // What a process that was killed leaves behind.
  await new Deno.Command("python3", {
    args: [
      "-c",
      "import socket,sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])",
      `${folder}/s`,
    ],
  }).output();
  const cases = [
    [`${folder}/none`, /there is no such control socket/, /start kemari with --control/],
    [`${folder}/s`, /nobody listens on this control socket/, /has ended without removing it/],
  ] as const;
  try {
    for (const [path, message, hint] of cases) {
      await assert.rejects(askStatus(path, never), (error) => {
        assert.ok(error instanceof TransportError && error.exitCode === 4);
        assert.match(error.message, message);
        return hint.test(error.hint!);
      });
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("descriptors come with the line that they were sent with, and are closed if nobody takes them", async () => {
  const taken: number[][] = [];
  const attach = (_request: AttachRequest, passed: number[]) => {
    taken.push(passed);
    return Promise.resolve(undefined);
  };
  const status = () => EARLY_RECEIVER;
  const before = [...Deno.readDirSync("/proc/self/fd")].length;
  await serving({ status, attach }, async (path) => {
    const reactor = new Reactor();
    const address = { kind: "unix", path, text: path } as const;
    const control = await connectSocket(address, reactor, 1000, never);
    const pipe = openSocketPair("test");
    const say = (text: string, ...fds: number[]) => {
      const bytes = new TextEncoder().encode(text);
      sendWithDescriptors(control, bytes, fds, "test", "control");
    };
    const answers = async (count: number) => {
      let text = "";
      const buffer = new Uint8Array(4096);
      while (text.split("\n").length <= count) {
        const { count: length } = receiveWithDescriptors(control, buffer, "test", "control");
        text += new TextDecoder().decode(buffer.subarray(0, length ?? 0));
        await delay(1);
      }
      return text.trim().split("\n");
    };
    say('{"command":"attach","way":"over-ssh"}\n', pipe.ours, pipe.theirs);
    assert.deepEqual(await answers(1), ['{"ok":true}']);
    // A line in two pieces, and a line that asks for something else.
    say('{"command":"status"}\n{"command":', pipe.ours);
    say('"attach","way":"over-ssh"}\n', pipe.ours);
    assert.equal((await answers(2)).length, 2);
    assert.deepEqual(taken.map((fds) => fds.length), [2, 1]);
    for (const fd of taken.flat()) libc().close(fd);
    // More than two are nobody's.
    say("no line yet", pipe.ours, pipe.theirs, pipe.ours);
    await until(() => isUnread(control), "the client is let go of");
    for (const fd of [control, pipe.ours, pipe.theirs]) libc().close(fd);
    reactor.close();
  });
  assert.equal([...Deno.readDirSync("/proc/self/fd")].length, before);
});
