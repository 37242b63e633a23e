import assert from "node:assert/strict";
import { join } from "node:path";
import { KemariError, QemuError, TransportError, WireError } from "../../errors.ts";
import { readMigrationSupport } from "./probe_qemu.ts";
import { QmpClient } from "./qmp_client.ts";
import { Reactor } from "../system/reactor.ts";
import { never } from "../system/never.ts";

const GREETING = '{"QMP": {"version": {"qemu": {"major": 11}}, "capabilities": ["oob"]}}\r\n';

interface Command {
  readonly id: number;
  readonly execute?: string;
  readonly "exec-oob"?: string;
  readonly arguments?: Record<string, unknown>;
}

/** QEMU's side of one connection. */
class FakeQemu {
  readonly received: Command[] = [];

  constructor(readonly connection: Deno.UnixConn) {}

  async say(...objects: unknown[]): Promise<void> {
    for (const object of objects) {
      const text = typeof object === "string" ? object : JSON.stringify(object) + "\r\n";
      let bytes: Uint8Array = new TextEncoder().encode(text);
      while (bytes.length > 0) bytes = bytes.subarray(await this.connection.write(bytes));
    }
  }

  async answerAll(answer: (command: Command) => unknown[] | Promise<unknown[]>): Promise<void> {
    const decoder = new TextDecoder();
    const buffer = new Uint8Array(4096);
    let text = "";
    for (;;) {
      const length = await this.connection.read(buffer);
      if (length === null) return;
      text += decoder.decode(buffer.subarray(0, length), { stream: true });
      for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
        const command: Command = JSON.parse(text.slice(0, end));
        text = text.slice(end + 1);
        this.received.push(command);
        await this.say(...await answer(command));
      }
    }
  }
}

/** Runs `test` against a socket whose only client meets `serve`. */
async function withServer(
  serve: (qemu: FakeQemu) => Promise<void>,
  test: (path: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "kemari-qmp-" });
  const path = join(folder, "qmp.sock");
  const listener = Deno.listen({ transport: "unix", path });
  const served = (async () => {
    const connection = await listener.accept();
    try {
      await serve(new FakeQemu(connection));
    } catch {
      // The client may close at any time.
    } finally {
      try {
        connection.close();
      } catch {
        // Closed by the test.
      }
    }
  })();
  try {
    await test(path);
    await served;
  } finally {
    listener.close();
    await Deno.remove(folder, { recursive: true });
  }
}

/** A QEMU that negotiates and answers by the table; commands not in it do not exist. */
function qemuWith(table: Record<string, unknown>): (qemu: FakeQemu) => Promise<void> {
  return async (qemu) => {
    await qemu.say(GREETING);
    await qemu.answerAll(({ id, execute = "" }) => {
      if (execute === "qmp_capabilities") return [{ return: {}, id }];
      if (execute in table) return [{ return: table[execute], id }];
      return [{ error: { class: "CommandNotFound", desc: `no ${execute}` }, id }];
    });
  };
}

/** A test on the runtime's sockets, and on a reactor. */
function testLines(
  name: string,
  body: (connect: typeof QmpClient.connect, t: Deno.TestContext) => Promise<void>,
): void {
  Deno.test(name, (t) => body((path, options) => QmpClient.connect(path, options), t));
  Deno.test(`${name}, on a reactor`, async (t) => {
    const reactor = new Reactor();
    try {
      const connect = (path: string, options = {}) =>
        QmpClient.connect(path, { ...options, reactor });
      await reactor.during(body(connect, t), never);
    } finally {
      reactor.close();
    }
  });
}

testLines(
  "QmpClient executes commands that overlap and gives each its own answer",
  async (connect) => {
    const held: unknown[] = [];
    await withServer(async (qemu) => {
      await qemu.say(GREETING);
      await qemu.answerAll(({ id, execute, "exec-oob": urgent }) => {
        if (execute === "slow") {
          held.push({ return: "slow", id });
          return [];
        }
        return [{ return: urgent ?? execute, id }, ...held.splice(0)];
      });
    }, async (path) => {
      await using client = await connect(path);
      assert.equal(client.path, path);
      assert.deepEqual((await client.greeting()).capabilities, ["oob"]);
      assert.deepEqual(
        await Promise.all([
          client.execute("slow"),
          client.run({ execute: "yank", outOfBand: true }),
        ]),
        ["slow", "yank"],
      );
    });
  },
);

testLines("QmpClient rejects with QEMU's error", async (connect) => {
  await withServer(qemuWith({}), async (path) => {
    await using client = await connect(path);
    await assert.rejects(client.execute("dance"), (error) => {
      assert.ok(error instanceof QemuError);
      assert.deepEqual([error.command, error.errorClass], ["dance", "CommandNotFound"]);
      return true;
    });
    await assert.rejects(client.runAll([{ execute: "a" }, { execute: "b" }]), /QEMU, a: no a/);
  });
});

testLines("QmpClient gives events to every reader, and waits for one by name", async (connect) => {
  const event = (name: string, data = {}) => ({
    event: name,
    data,
    timestamp: { seconds: 1, microseconds: 0 },
  });
  await withServer(async (qemu) => {
    await qemu.say(GREETING);
    await qemu.answerAll(({ id, execute }) =>
      execute === "migrate"
        ? [
          event("MIGRATION", { status: "setup" }),
          { return: {}, id },
          event("STOP"),
          event("MIGRATION", { status: "completed" }),
        ]
        : [{ return: {}, id }]
    );
  }, async (path) => {
    const client = await connect(path);
    const all = client.events();
    const completed = client.waitEvent(
      "MIGRATION",
      5000,
      ({ data }) => data.status === "completed",
    );
    await client.execute("migrate");
    assert.deepEqual((await completed).data, { status: "completed" });
    await client.close();
    const names: string[] = [];
    for await (const { name } of all) names.push(name);
    assert.deepEqual(names, ["MIGRATION", "STOP", "MIGRATION"]);
    assert.deepEqual(await client.events().next(), { value: undefined, done: true });
    assert.equal(await client.closed, undefined);
    await assert.rejects(client.execute("stop"), TransportError);
  });
});

testLines("QmpClient does not wait for ever", async (connect, t) => {
  await t.step("for a greeting", async () => {
    await withServer(async (qemu) => {
      await qemu.answerAll(() => []);
    }, async (path) => {
      await assert.rejects(connect(path, { timeoutMs: 20 }), (error) => {
        assert.ok(error instanceof TransportError && error.phase === "connect");
        assert.match(error.hint ?? "", /one client at a time/);
        return true;
      });
    });
  });
  await t.step("for an answer, and survives its coming late", async () => {
    const gate = Promise.withResolvers<void>();
    await withServer(async (qemu) => {
      await qemu.say(GREETING);
      await qemu.answerAll(async ({ id, execute }) => {
        if (execute === "slow") await gate.promise;
        return [{ return: execute, id }];
      });
    }, async (path) => {
      await using client = await connect(path);
      await assert.rejects(
        client.execute("slow", undefined, { timeoutMs: 20 }),
        /no answer to slow in 20 ms/,
      );
      assert.equal(client.isOpen, true, "a QEMU that is late is not gone");
      gate.resolve();
      assert.equal(await client.execute("next"), "next");
    });
  });
  await t.step("for an event", async () => {
    await withServer(qemuWith({}), async (path) => {
      await using client = await connect(path);
      await assert.rejects(client.waitEvent("STOP", 20), /no event STOP in 20 ms/);
    });
  });
});

testLines("QmpClient tells everyone who waits when QEMU goes away", async (connect) => {
  await withServer(async (qemu) => {
    await qemu.say(GREETING);
    await qemu.answerAll(({ id, execute }) => {
      if (execute === "qmp_capabilities") return [{ return: {}, id }];
      qemu.connection.close();
      return [];
    });
  }, async (path) => {
    await using client = await connect(path);
    const events = client.events();
    const waiting = assert.rejects(client.waitEvent("STOP", 5000), TransportError);
    await assert.rejects(client.execute("quit"), (error) => {
      assert.ok(error instanceof TransportError);
      assert.equal(error.endpoint, path);
      return true;
    });
    await waiting;
    assert.equal((await events.next()).done, true);
    assert.ok(await client.closed instanceof TransportError);
    assert.equal(client.isOpen, false);
    await assert.rejects(client.execute("stop"), TransportError);
  });
});

testLines("QmpClient refuses a server that does not speak QMP", async (connect) => {
  for (const [text, message] of [["SSH-2.0-x\r\n", /0x53/], ['{"hello": 1}\r\n', /greeting/]]) {
    await withServer(async (qemu) => {
      await qemu.say(text);
    }, async (path) => {
      await assert.rejects(connect(path), (error) => {
        assert.ok(error instanceof WireError && error.protocol === "qmp");
        assert.match(error.message, message as RegExp);
        return true;
      });
    });
  }
});

testLines("QmpClient says how to get a socket where there is none", async (connect) => {
  const folder = await Deno.makeTempDir({ prefix: "kemari-qmp-" });
  const path = join(folder, "none.sock");
  try {
    await assert.rejects(connect(path), (error) => {
      assert.ok(error instanceof TransportError);
      assert.equal(error.hint, `start QEMU with -qmp unix:${path},server=on,wait=off`);
      return true;
    });
    Deno.listen({ transport: "unix", path }).close();
    await assert.rejects(connect(path), (error) => {
      return error instanceof TransportError && error.hint !== undefined;
    });
    await Deno.writeTextFile(join(folder, "file"), "");
    await assert.rejects(connect(join(folder, "file")), KemariError);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

testLines("readMigrationSupport decides with the answers it gets", async (connect) => {
  await withServer(
    qemuWith({
      "query-version": { qemu: { major: 10, minor: 0, micro: 13 } },
      "query-migrate-capabilities": [{ capability: "x-colo", state: false }],
      "query-status": { status: "running" },
    }),
    async (path) => {
      await using client = await connect(path);
      const support = await readMigrationSupport(client);
      assert.equal(support.mode, "snapshot");
      assert.match(support.coloReason, /10\.0/);
    },
  );
});
