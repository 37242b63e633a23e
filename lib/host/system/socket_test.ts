import assert from "node:assert/strict";
import { InterruptedError, TransportError } from "../../errors.ts";
import { parseAddress } from "./address.ts";
import { libc } from "./libc.ts";
import { Reactor } from "./reactor.ts";
import { connectSocket, listenSocket } from "./socket.ts";
import { never } from "./never.ts";

function socketAddress(text: string) {
  const address = parseAddress(text);
  assert.ok(address.kind === "tcp" || address.kind === "unix");
  return address;
}

async function onStage(body: (reactor: Reactor, folder: string) => Promise<void>) {
  const reactor = new Reactor();
  const folder = await Deno.makeTempDir({ prefix: "kemari-socket-" });
  try {
    await body(reactor, folder);
  } finally {
    reactor.close();
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("a listener is reached under the address that it names, by name and by number", () =>
  onStage(async (reactor) => {
    for (
      const [listen, hosts] of [
        ["127.0.0.1:0", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"]],
        [":0", ["127.0.0.1", "localhost"]],
      ] as const
    ) {
      const listener = await listenSocket(socketAddress(listen), reactor, never);
      const [, port] = /:(\d+)$/.exec(listener.text)!;
      assert.notEqual(port, "0");
      for (const host of hosts) {
        const fd = await connectSocket(socketAddress(`${host}:${port}`), reactor, 1000, never);
        const accepted = listener.accept();
        assert.ok(accepted !== undefined, host);
        libc().close(accepted);
        libc().close(fd);
      }
      assert.equal(listener.accept(), undefined);
      listener.close();
    }
  }));

Deno.test("a Unix socket: a dead one is replaced, a live one and a file are not", () =>
  onStage(async (reactor, folder) => {
    const address = socketAddress(`unix:${folder}/s`);
    // What a killed process leaves: the file, and nobody behind it.
    const dead = await listenSocket(address, reactor, never);
    libc().close(dead.fd);
    const live = await listenSocket(address, reactor, never);
    await assert.rejects(listenSocket(address, reactor, never), (error) => {
      assert.ok(error instanceof TransportError && error.phase === "listen");
      return error.hint === "another process listens there";
    });
    const fd = await connectSocket(address, reactor, 1000, never);
    libc().close(fd);
    live.close();
    assert.deepEqual([...Deno.readDirSync(folder)], []);
    await Deno.writeTextFile(`${folder}/s`, "precious");
    await assert.rejects(listenSocket(address, reactor, never), (error) => {
      return error instanceof TransportError && /it is no socket/.test(error.hint!);
    });
    assert.equal(await Deno.readTextFile(`${folder}/s`), "precious");
  }));

Deno.test("a Unix socket whose queue is full is waited for, up to the time limit", () =>
  onStage(async (reactor, folder) => {
    const address = socketAddress(`unix:${folder}/s`);
    const listener = await listenSocket(address, reactor, never);
    const open: number[] = [];
    try {
      await assert.rejects(async () => {
        for (let i = 0; i < 2000; i++) {
          open.push(await connectSocket(address, reactor, 100, never));
        }
      }, (error) => error instanceof TransportError && /timed out/.test(error.message));
      assert.ok(open.length >= 16, `${open.length} got in`);
      reactor.after(30, () => libc().close(listener.accept()!));
      open.push(await connectSocket(address, reactor, 2000, never));
    } finally {
      open.forEach((fd) => libc().close(fd));
      listener.close();
    }
  }));

Deno.test("connecting says what failed and what to do, and stops for a signal", () =>
  onStage(async (reactor, folder) => {
    for (
      const [text, phase] of [
        [`unix:${folder}/none`, "connect"],
        ["127.0.0.1:1", "connect"],
        ["no-such-host.invalid:1", "resolve"],
      ] as const
    ) {
      await assert.rejects(connectSocket(socketAddress(text), reactor, 500, never), (error) => {
        assert.ok(error instanceof TransportError, `${error}`);
        assert.deepEqual([error.endpoint, error.phase, error.exitCode], [text, phase, 4]);
        return error.hint !== undefined;
      });
    }
    const controller = new AbortController();
    const reason = new InterruptedError("interrupted");
    controller.abort(reason);
    for (const text of ["no-such-host.invalid:1", "127.0.0.1:1"]) {
      await assert.rejects(
        connectSocket(socketAddress(text), reactor, 500, controller.signal),
        (error) => error === reason || text.startsWith("127"),
      );
    }
  }));
