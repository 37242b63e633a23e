import assert from "node:assert/strict";
import { QemuError, StateError, WireError } from "../errors.ts";
import { type QmpNotice, QmpSession } from "./session.ts";

const encoder = new TextEncoder();
const GREETING = '{"QMP": {"version": {"qemu": {"major": 11}}, "capabilities": ["oob"]}}\r\n';

function give(session: QmpSession, ...objects: unknown[]): QmpNotice[] {
  for (const object of objects) {
    const text = typeof object === "string" ? object : JSON.stringify(object);
    session.receive(encoder.encode(text + "\r\n"));
  }
  const notices: QmpNotice[] = [];
  for (let next = session.take(); next !== undefined; next = session.take()) notices.push(next);
  return notices;
}

function sent(session: QmpSession): unknown[] {
  const objects: unknown[] = [];
  for (let bytes = session.takeOutput(); bytes !== undefined; bytes = session.takeOutput()) {
    objects.push(JSON.parse(new TextDecoder().decode(bytes)));
  }
  return objects;
}

function readySession(greeting = GREETING): QmpSession {
  const session = new QmpSession();
  give(session, greeting);
  sent(session);
  give(session, { return: {}, id: 1 });
  return session;
}

Deno.test("QmpSession negotiates out-of-band execution where it is offered", () => {
  const session = new QmpSession();
  assert.deepEqual(give(session, GREETING), []);
  assert.deepEqual(sent(session), [
    { execute: "qmp_capabilities", arguments: { enable: ["oob"] }, id: 1 },
  ]);
  assert.equal(session.isReady, false);
  const [notice] = give(session, { return: {}, id: 1 });
  assert.equal(notice.kind, "ready");
  assert.deepEqual(notice.kind === "ready" && notice.greeting.capabilities, ["oob"]);
  assert.equal(session.isReady, true);
});

Deno.test("QmpSession takes a second greeting for the first, if it has not been answered", () => {
  const session = new QmpSession();
  give(session, GREETING);
  assert.equal(sent(session).length, 1);
  assert.deepEqual(give(session, GREETING), []);
  assert.deepEqual(sent(session), []);
  assert.equal(give(session, { return: {}, id: 1 })[0].kind, "ready");
  assert.equal(session.command({ execute: "query-status" }), 2);
});

Deno.test("QmpSession negotiates again behind a late second greeting, and says again what was refused", () => {
  const session = readySession();
  const early = session.command({ execute: "query-status" });
  assert.equal(sent(session).length, 1);
  give(session, GREETING);
  const late = session.command({ execute: "query-name" });
  const [negotiation, ...others] = sent(session) as { execute: string; id: number }[];
  assert.deepEqual([negotiation.execute, others], ["qmp_capabilities", []]);
  const refused = { class: "CommandNotFound", desc: "Expecting capabilities negotiation" };
  assert.deepEqual(give(session, { error: refused, id: early }), []);
  assert.equal(give(session, { return: {}, id: negotiation.id })[0].kind, "ready");
  const again = sent(session) as { execute: string; id: number }[];
  assert.deepEqual(
    new Map(again.map(({ id, execute }) => [id, execute])),
    new Map([
      [early, "query-status"],
      [late, "query-name"],
    ]),
  );
  const notices = give(session, { return: 1, id: late }, { return: 2, id: early });
  assert.deepEqual(notices.map(({ kind }) => kind), ["reply", "reply"]);
});

Deno.test("QmpSession executes in the ordinary way where out-of-band is not offered", () => {
  const session = new QmpSession();
  give(session, { QMP: { version: {}, capabilities: [] } });
  assert.deepEqual(sent(session), [{ execute: "qmp_capabilities", id: 1 }]);
  give(session, { return: {}, id: 1 });
  session.command({ execute: "yank", outOfBand: true });
  assert.deepEqual(sent(session), [{ execute: "yank", id: 2 }]);
});

Deno.test("QmpSession matches answers to commands in any order, with events between", () => {
  const session = readySession();
  const slow = session.command({ execute: "query-block" });
  const fast = session.command({ execute: "yank", arguments: { instances: [] }, outOfBand: true });
  assert.deepEqual(sent(session), [
    { execute: "query-block", id: slow },
    { "exec-oob": "yank", arguments: { instances: [] }, id: fast },
  ]);
  const notices = give(
    session,
    { error: { class: "GenericError", desc: "Instance not found" }, id: fast },
    { event: "STOP", timestamp: { seconds: 3, microseconds: 500 } },
    { event: "RESUME", timestamp: { seconds: -1, microseconds: -1 }, data: { a: 1 } },
    { return: [1], id: slow },
  );
  const [failure, stop, resume, reply] = notices;
  assert.ok(failure.kind === "failure" && failure.error instanceof QemuError);
  assert.deepEqual(
    [failure.id, failure.error.command, failure.error.errorClass, failure.error.message],
    [fast, "yank", "GenericError", "QEMU, yank: Instance not found"],
  );
  assert.deepEqual(stop, { kind: "event", event: { name: "STOP", data: {}, timestampMs: 3000.5 } });
  assert.deepEqual(resume, { kind: "event", event: { name: "RESUME", data: { a: 1 } } });
  assert.deepEqual(reply, { kind: "reply", id: slow, value: [1] });
});

Deno.test("QmpSession refuses a command before it is ready", () => {
  assert.throws(() => new QmpSession().command({ execute: "stop" }), StateError);
});

Deno.test("QmpSession throws QemuError if the negotiation is refused", () => {
  const session = new QmpSession();
  give(session, GREETING);
  assert.throws(
    () => give(session, { error: { class: "CommandNotFound", desc: "no" }, id: 1 }),
    (error) => error instanceof QemuError && error.command === "qmp_capabilities",
  );
});

Deno.test("QmpSession refuses what no QEMU says", async (t) => {
  const cases: [string, () => QmpSession, unknown, WireError["fault"]][] = [
    ["a first message without greeting", () => new QmpSession(), { return: {} }, "bad-magic"],
    ["an answer to no command", readySession, { return: {}, id: 99 }, "bad-order"],
    ["an answer twice", readySession, { return: {}, id: 1 }, "bad-order"],
    ["an answer without id", readySession, { return: {} }, "bad-order"],
    ["an answer with a foreign id", readySession, { return: {}, id: "x" }, "bad-order"],
    [
      "an error about an unreadable command",
      readySession,
      { error: { class: "GenericError", desc: "JSON parse error" } },
      "refused",
    ],
    ["neither answer nor event", readySession, { hello: 1 }, "bad-value"],
  ];
  for (const [name, make, message, fault] of cases) {
    await t.step(name, () => {
      assert.throws(
        () => give(make(), message),
        (error) => error instanceof WireError && error.fault === fault,
      );
    });
  }
});

Deno.test("QmpSession names the offset of the faulty message in the connection", () => {
  const session = readySession();
  const before = encoder.encode(GREETING + "\r\n").length + '{"return":{},"id":1}\r\n'.length;
  assert.throws(
    () => give(session, { hello: 1 }),
    (error) => error instanceof WireError && error.offset === before,
  );
});

Deno.test("an event before the greeting, as from a QEMU that is just starting, is an event", () => {
  const session = new QmpSession();
  const [notice] = give(session, { event: "NETDEV_STREAM_CONNECTED", data: {} }, GREETING);
  assert.equal(notice.kind === "event" && notice.event.name, "NETDEV_STREAM_CONNECTED");
  assert.equal(sent(session).length, 1, "the capabilities are negotiated");
});
