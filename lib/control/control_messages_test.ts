import assert from "node:assert/strict";
import { KemariError, RelayedError, TransportError, WireError } from "../errors.ts";
import {
  decodeDone,
  decodeDurations,
  decodePlace,
  decodeStatus,
  encodeAnswer,
  MAX_ANSWER_BYTES,
  refusalOf,
} from "./answer.ts";
import { decodeRequest, encodeRequest, MAX_REQUEST_BYTES } from "./request.ts";
import { decodeViaConfig } from "./protect_request.ts";
import { isWhole } from "./end_status.ts";
import * as samples from "./testing/statuses.ts";

interface Message {
  readonly name: string;
  readonly value: object;
  readonly decode: (line: string) => unknown;
  /** Fields that may be missing. */
  readonly optional: readonly string[];
}

/** As an end does that is asked: whose request it is comes first. */
function decodeProtection(line: string): unknown {
  const request = decodeRequest(line);
  if (!("command" in request) || request.command !== "protect") return request;
  return { ...request, settings: decodeViaConfig(request) };
}

const status = (line: string) => decodeStatus(line, "/run/ctl");
const MESSAGES: readonly Message[] = [
  {
    name: "a sender's status",
    value: samples.SENDER,
    decode: status,
    optional: ["encryption", "vm", "outside", "deviceChange", "taps"],
  },
  { name: "a sender's first status", value: samples.EARLY_SENDER, decode: status, optional: [] },
  {
    name: "a receiver's status",
    value: samples.RECEIVER,
    decode: status,
    optional: ["encryption", "ram", "deviceChange", "standby", "takeover"],
  },
  {
    name: "a receiver's first status",
    value: samples.EARLY_RECEIVER,
    decode: status,
    optional: [],
  },
  {
    name: "durations",
    value: samples.DURATIONS,
    decode: (line) => decodeDurations(line, "/run/ctl"),
    optional: [],
  },
  {
    name: "a request to protect",
    value: samples.PROTECT,
    decode: decodeProtection,
    optional: [
      "settings.security.key",
      "settings.ssh",
      "settings.ssh.startRecv",
      "settings.sessionName",
      "settings.vm",
      "settings.syncOn",
      "settings.dedup",
    ],
  },
];

type Key = string | number;

/** Every place in a message that has a name or an index, as a path. */
function* placesOf(value: unknown, path: readonly Key[] = []): Generator<readonly Key[]> {
  if (path.length > 0) yield path;
  if (typeof value !== "object" || value === null) return;
  for (const [key, each] of Object.entries(value)) {
    yield* placesOf(each, [...path, Array.isArray(value) ? Number(key) : key]);
  }
}

/** The message with one place changed; without it if there is nothing to put there. */
function changed(value: object, path: readonly Key[], to?: unknown): string {
  // Samples share parts of theirs.
  const copy = JSON.parse(JSON.stringify(value));
  const last = path.at(-1)!;
  // deno-lint-ignore no-explicit-any
  const holder = path.slice(0, -1).reduce<any>((at, key) => at[key], copy);
  if (to === undefined) delete holder[last];
  else holder[last] = to;
  return JSON.stringify(copy);
}

/** A place as an error names it. */
function nameOf(path: readonly Key[]): string {
  return path.reduce<string>((text, key, at) => {
    if (typeof key === "number") return `${text}[${key}]`;
    // NICs are named by the operator.
    if (/(^|\.)(nets|netHold)$/.test(text)) return `${text}["${key}"]`;
    return at === 0 ? key : `${text}.${key}`;
  }, "");
}

function faultOf(decode: () => unknown): WireError {
  try {
    decode();
  } catch (error) {
    assert.ok(error instanceof WireError, String(error));
    assert.deepEqual([error.protocol, error.party, error.exitCode], ["control", "control", 3]);
    return error;
  }
  assert.fail("it was taken for a good one");
}

for (const { name, value, decode, optional } of MESSAGES) {
  Deno.test(`${name} comes back as it was, with fields of later versions`, () => {
    assert.deepEqual(decode(JSON.stringify(value)), value);
    const later = { ...value, later: [{ more: 1 }] };
    // What a request asks for beyond what is known here is not asked of this end.
    assert.deepEqual(decode(JSON.stringify(later)), later);
  });

  Deno.test(`${name} with any field missing is refused by that field's name`, () => {
    for (const path of placesOf(value)) {
      const last = path.at(-1)!;
      const isEntry = typeof last === "number" || /^net\d$/.test(last);
      if (isEntry || path.join() === "role" || path.join() === "command") continue;
      const text = nameOf(path);
      if (optional.includes(text)) assert.ok(decode(changed(value, path)), text);
      else {
        const { message } = faultOf(() => decode(changed(value, path)));
        assert.ok(message.includes(`: ${text} is missing (bad-value)`), `${text}: ${message}`);
      }
    }
  });

  Deno.test(`${name} with anything of another type is refused by its name`, () => {
    const others = ["text", 1e3, true, null, [], {}, [[]], { x: {} }];
    let refused = 0;
    for (const path of placesOf(value)) {
      if (["role", "command"].includes(path.join())) continue;
      const text = nameOf(path);
      for (const other of others) {
        const line = changed(value, path, other);
        try {
          decode(line);
          continue;
        } catch (error) {
          assert.ok(error instanceof WireError && error.fault === "bad-value", String(error));
          assert.ok(error.message.includes(text), `${text}: ${error.message}`);
          refused++;
        }
      }
      // No place takes a list in a list and an object of objects both.
      const takes = others.filter((other) => {
        try {
          return decode(changed(value, path, other)) !== undefined;
        } catch {
          return false;
        }
      });
      assert.ok(takes.length <= 3, `${text} takes ${JSON.stringify(takes)}`);
    }
    assert.ok(refused > 0);
  });

  Deno.test(`${name} that is cut off anywhere is refused`, () => {
    const line = JSON.stringify(value);
    for (let length = 0; length < line.length; length += line.length > 2000 ? 7 : 1) {
      if (decode !== decodeProtection) faultOf(() => decode(line.slice(0, length)));
      else {
        assert.deepEqual(decode(line.slice(0, length)), { error: "the request is not JSON" });
      }
    }
  });
}

Deno.test("samples are whole: what tests take a field from has every field there is", () => {
  for (const sample of [samples.SENDER, samples.RECEIVER]) assert.ok(isWhole(sample));
  for (const early of [samples.EARLY_SENDER, samples.EARLY_RECEIVER]) assert.ok(!isWhole(early));
});

Deno.test("requests come back as they were; what is none is answered", () => {
  for (
    const request of [
      { command: "status" },
      { command: "durations" },
      { command: "failover", stale: true },
      samples.PROTECT,
      { command: "attach", way: "over-ssh" },
      { command: "attach", way: "direct", identity: "session-1", key: "0a".repeat(32) },
    ] as const
  ) {
    const line = encodeRequest(request);
    assert.ok(line.endsWith("}\n") && line.length < MAX_REQUEST_BYTES);
    assert.deepEqual(decodeRequest(line.trimEnd()), request);
  }
  assert.deepEqual(decodeRequest('{"command":"failover"}'), { command: "failover", stale: false });
  assert.match(
    faultOf(() => decodeRequest('{"command":"failover","stale":"yes"}')).message,
    /stale/,
  );
  for (const none of ["", "{", "GET / HTTP/1.1"]) {
    assert.deepEqual(decodeRequest(none), { error: "the request is not JSON" });
  }
  for (const [line, command] of [["{}", "undefined"], ["null", "undefined"], ["[]", "undefined"]]) {
    assert.deepEqual(decodeRequest(line), { error: `no such command: ${command}` });
  }
  assert.deepEqual(decodeRequest('{"command":"dance"}'), { error: "no such command: dance" });
});

Deno.test("a request to protect that names taps is refused: the end that is asked has them", () => {
  const line = changed(samples.PROTECT, ["settings", "taps", "nets"], ["net0"]);
  assert.match(faultOf(() => decodeProtection(line)).message, /taps\.nets\[0\] must not be there/);
});

Deno.test("a refusal is thrown as the other end's, with its reason, hint and exit code", () => {
  const error = new TransportError("--fence", "spawn", "failed", { hint: "look" });
  const line = encodeAnswer(refusalOf(error)).trimEnd();
  assert.equal(line, '{"error":"--fence: failed","hint":"look","exitCode":4}');
  const cases: [string, number, string | undefined][] = [
    [line, 4, "look"],
    ['{"error":"busy"}', 4, undefined],
    ['{"error":"busy","exitCode":5}', 5, undefined],
    ['{"error":"busy","exitCode":0}', 4, undefined],
  ];
  for (const [answer, exitCode, hint] of cases) {
    assert.throws(() => decodeDone(answer, "/run/ctl"), (thrown) => {
      assert.ok(thrown instanceof RelayedError && thrown instanceof KemariError);
      assert.match(thrown.message, /^\/run\/ctl: (--fence: failed|busy)$/);
      assert.deepEqual([thrown.exitCode, thrown.hint, thrown.party], [exitCode, hint, "control"]);
      return true;
    });
  }
  faultOf(() => decodeDone('{"error":1}', "/run/ctl"));
  faultOf(() => decodeDone('{"error":"busy","exitCode":"4"}', "/run/ctl"));
});

Deno.test("done is done, and nothing else is", () => {
  assert.deepEqual(decodeDone(encodeAnswer({ ok: true }), "/run/ctl"), { ok: true });
  for (const line of ["{}", "null", "[]", "1", '{"ok":false}', '{"ok":1}', "[{}]"]) {
    assert.match(faultOf(() => decodeDone(line, "/run/ctl")).message, /is not kemari's/);
  }
});

Deno.test("a place to connect to is told, and no message shows the key that is asked with", () => {
  const place = { host: "2001:db8::2", port: 4000 };
  assert.deepEqual(decodePlace(encodeAnswer({ ok: true, ...place }), "/run/ctl"), place);
  faultOf(() => decodePlace(encodeAnswer({ ok: true }), "/run/ctl"));
  assert.throws(() => decodePlace('{"error":"busy"}', "/run/ctl"), RelayedError);
  const secret = "5ec4e7".repeat(10);
  for (const key of [secret, [secret], { [secret]: secret }]) {
    const line = JSON.stringify({ command: "attach", way: "direct", identity: "a", key });
    assert.ok(!faultOf(() => decodeRequest(line)).message.includes("5ec4e7"));
  }
});

Deno.test("no text and no depth of a stranger's answer does harm", () => {
  const long = JSON.stringify({ role: "x".repeat(100_000) });
  assert.ok(faultOf(() => status(long)).message.length < 200);
  const deep = "[".repeat(100_000) + "]".repeat(100_000);
  assert.ok(deep.length < MAX_ANSWER_BYTES);
  faultOf(() => status(`{"role":${deep}}`));
  faultOf(() => status('{"__proto__":{"role":"sender"}}'));
  const huge = changed(samples.SENDER, ["syncs"], 7).replace('"syncs":7', '"syncs":1e999');
  assert.match(faultOf(() => status(huge)).message, /syncs must be a number/);
});

Deno.test("another program's request to protect says whose it is, whatever its settings are", () => {
  const request = { command: "protect", software: "kemari 9", settings: "later" };
  assert.deepEqual(decodeRequest(JSON.stringify(request)), request);
  assert.match(
    faultOf(() => decodeProtection(JSON.stringify(request))).message,
    /the request to protect: settings must be an object, and is "later"/,
  );
});

Deno.test("texts and names of fields are told, and taken, so that they can be shown", () => {
  const words = "a\x1b[2J\u202e\n";
  const shown = "a\\u{1b}[2J\\u{202e}\\n";
  const hostile = { ...samples.RECEIVER, sender: words, [words]: [{ [words]: words }] };
  const wanted = { ...samples.RECEIVER, sender: shown, [shown]: [{ [shown]: shown }] };
  assert.deepEqual(decodeStatus(JSON.stringify(hostile), "/run/ctl"), wanted);
  assert.deepEqual(JSON.parse(encodeAnswer(hostile)), wanted);
  assert.throws(
    () => decodeDone(JSON.stringify({ error: words, hint: words, exitCode: 3 }), "/run/ctl"),
    (error) =>
      error instanceof RelayedError && error.hint === shown &&
      error.message === `/run/ctl: ${shown}`,
  );
});
