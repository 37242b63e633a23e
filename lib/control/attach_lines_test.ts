import assert from "node:assert/strict";
import { TransportError } from "../errors.ts";
import {
  ATTACH_VERSION,
  AttachAsker,
  AttachListener,
  type AttachStep,
  encodeAttached,
  encodeAttachRequest,
  encodeGreeting,
  MAX_ATTACH_LINE_BYTES,
} from "./attach_lines.ts";
import type { AttachPlace, AttachRequest } from "./attach_request.ts";

const KEY = "0123456789abcdef".repeat(4);
const DIRECT: AttachRequest = { way: "direct", identity: "session-1f.2_a", key: KEY };
const OVER: AttachRequest = { way: "over-ssh" };
const PLACE: AttachPlace = { host: "0.0.0.0", port: 4000 };
const GREETING = encodeGreeting("kemari 0.1.0");
const bytes = (text: string) => new TextEncoder().encode(text);

/** What an asker comes to that is told this, in two pieces: the second behind its request. */
function ask(request: AttachRequest, answer: string, greeting = GREETING): AttachStep | undefined {
  const asker = new AttachAsker("ssh:far", request);
  const say = asker.receive(bytes(greeting));
  assert.deepEqual(say, { do: "say", line: encodeAttachRequest(request) });
  return asker.receive(bytes(answer));
}

function faultOf(action: () => unknown, name = "ssh:far"): TransportError {
  try {
    action();
  } catch (error) {
    assert.ok(error instanceof TransportError, String(error));
    assert.deepEqual([error.endpoint, error.party, error.exitCode], [name, "peer", 4]);
    return error;
  }
  assert.fail("it was taken for a good one");
}

Deno.test("a sender asks whoever greets, and is told where to begin", () => {
  assert.deepEqual(ask(DIRECT, encodeAttached(PLACE)), { do: "begin", place: PLACE });
  const over = ask(OVER, encodeAttached(undefined));
  assert.deepEqual(over, { do: "begin", place: undefined });
  const six = { host: "fe80::1%eth0", port: 65535 };
  assert.deepEqual(ask(DIRECT, encodeAttached(six)), { do: "begin", place: six });
});

Deno.test("requests come out of pieces as they were, wherever these are cut", () => {
  for (const request of [DIRECT, OVER]) {
    const all = bytes(encodeAttachRequest(request));
    for (let first = 0; first < all.length; first++) {
      for (let second = first; second < all.length; second++) {
        const listener = new AttachListener();
        assert.equal(listener.receive(all.subarray(0, first)), undefined);
        assert.equal(listener.receive(all.subarray(first, second)), undefined);
        assert.deepEqual(listener.receive(all.subarray(second)), request);
      }
    }
  }
});

Deno.test("greetings and answers are taken wherever they are cut, and are copied", () => {
  const [greeting, answer] = [bytes(GREETING), bytes(encodeAttached(PLACE))];
  for (let first = 0; first < greeting.length; first++) {
    for (let second = 0; second < answer.length; second++) {
      const asker: AttachAsker = new AttachAsker("ssh:far", DIRECT);
      const begun = greeting.slice(0, first);
      assert.equal(asker.receive(begun), undefined);
      begun.fill(0);
      assert.equal(asker.isGreeted, false);
      assert.equal(asker.receive(greeting.subarray(first))?.do, "say");
      assert.equal(asker.isGreeted, true);
      assert.equal(asker.receive(answer.subarray(0, second)), undefined);
      const step = asker.receive(answer.subarray(second));
      assert.deepEqual(step, { do: "begin", place: PLACE });
    }
  }
});

Deno.test("whatever a login shell prints first is shown, and nothing is asked then", () => {
  for (const said of ["Welcome to far!\n", "\n", "{}\n", "null\n", '{"kemari":"detach"}\n']) {
    const asker: AttachAsker = new AttachAsker("ssh:far", DIRECT);
    const error = faultOf(() => asker.receive(bytes(said + GREETING)));
    assert.ok(error.message.includes(JSON.stringify(said.trimEnd()).replaceAll("\\", "")));
    assert.match(error.message, /was said there before kemari spoke/);
    assert.match(error.hint!, /\.bashrc/);
    assert.equal(asker.isGreeted, false);
  }
  const unfinished = new AttachAsker("ssh:far", DIRECT);
  unfinished.receive(bytes("Password\x1b[2J: "));
  assert.equal(unfinished.unfinished, "Password\\u{1b}[2J: ");
  const endless = bytes("x".repeat(MAX_ATTACH_LINE_BYTES + 1));
  const { message } = faultOf(() => new AttachAsker("ssh:far", OVER).receive(endless));
  assert.match(message, /"x+…" was said there/);
  assert.ok(message.length < 300);
});

Deno.test("a kemari that attaches in another way is named", () => {
  const later = GREETING.replace(`:${ATTACH_VERSION},`, `:${ATTACH_VERSION + 1},`);
  const error = faultOf(() => new AttachAsker("ssh:far", OVER).receive(bytes(later)));
  assert.match(error.message, /kemari 0\.1\.0 there attaches senders in another way \(version 2/);
  assert.match(error.hint!, /the same kemari/);
});

Deno.test("a refusal is told with its hint, and always fits into a line", () => {
  const refusal = { error: "it is still starting", hint: "ask again", exitCode: 4 };
  for (const request of [DIRECT, OVER]) {
    const error = faultOf(() => ask(request, encodeAttached(refusal)));
    assert.equal(error.message, "ssh:far: refused there: it is still starting");
    assert.equal(error.hint, "ask again");
  }
  const long = { error: '"\x07☃'.repeat(5000), hint: "\\".repeat(5000), exitCode: 70 };
  const line = encodeAttached(long);
  assert.ok(bytes(line).length <= MAX_ATTACH_LINE_BYTES, `${bytes(line).length}`);
  assert.match(faultOf(() => ask(OVER, line)).message, /refused there: "\\u\{7\}☃/);
});

Deno.test("nobody says anything out of turn", () => {
  const eager = GREETING + encodeAttached(undefined);
  assert.match(
    faultOf(() => new AttachAsker("ssh:far", OVER).receive(bytes(eager))).message,
    /more than it was asked/,
  );
  const more = encodeAttached(undefined) + "\0";
  assert.match(faultOf(() => ask(OVER, more)).message, /more than one line/);
  const two = bytes(encodeAttachRequest(OVER) + "\n");
  assert.match(
    faultOf(() => new AttachListener().receive(two), "ssh").message,
    /more than one line/,
  );
  const asker = new AttachAsker("ssh:far", OVER);
  asker.receive(bytes(GREETING));
  asker.receive(bytes(encodeAttached(undefined)));
  assert.throws(() => asker.receive(bytes("x")), TypeError);
});

Deno.test("answers with a field missing or of another kind are refused by its name", () => {
  const cases: [string, RegExp][] = [
    ['{"ok":true}', /host must be an IP address/],
    ['{"ok":true,"host":"a b","port":1}', /host must be an IP address/],
    ['{"ok":true,"host":"::","port":0}', /port must be a port's number/],
    ['{"ok":true,"host":"::","port":65536}', /port must be/],
    ['{"ok":true,"host":"::","port":"1"}', /port must be/],
    ['{"ok":1,"host":"::","port":1}', /ok must be true/],
    ['{"error":1}', /error must be a text/],
    ["[]", /ok is missing|it must be an object/],
    ["no", /not JSON/],
  ];
  for (const [answer, wanted] of cases) {
    assert.match(faultOf(() => ask(DIRECT, answer + "\n")).message, wanted, answer);
  }
});

Deno.test("no message shows a key, whatever is wrong with the request", () => {
  const keys = [KEY.slice(1), KEY + "00", KEY.toUpperCase(), ` ${KEY}`, [KEY], { key: KEY }, null];
  for (const key of keys) {
    const line = JSON.stringify({ ...DIRECT, key }) + "\n";
    const { message } = faultOf(() => new AttachListener().receive(bytes(line)), "ssh");
    assert.match(message, /key must be 32 bytes in hexadecimal$/);
    assert.ok(!message.toLowerCase().includes(KEY.slice(2, 12)), message);
  }
  const cut = bytes(encodeAttachRequest(DIRECT).slice(0, -3) + "\n");
  const { message } = faultOf(() => new AttachListener().receive(cut), "ssh");
  assert.ok(!message.includes(KEY.slice(2, 12)), message);
  for (const identity of ["", "a:b", "a\nb", "x".repeat(65), 1, undefined]) {
    const line = bytes(JSON.stringify({ ...DIRECT, identity }) + "\n");
    assert.match(faultOf(() => new AttachListener().receive(line), "ssh").message, /identity must/);
  }
  const way = bytes('{"way":"sideways"}\n');
  assert.match(faultOf(() => new AttachListener().receive(way), "ssh").message, /way must be/);
});

Deno.test("changed and cut lines are taken for what they say, or refused: nothing else is thrown", () => {
  let seed = 1;
  const random = (below: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 8) % below;
  };
  const lines = [
    GREETING,
    encodeAttachRequest(DIRECT),
    encodeAttached(PLACE),
    encodeAttached({ error: "busy", hint: "wait", exitCode: 4 }),
  ];
  let refused = 0;
  for (let round = 0; round < 1600; round++) {
    const line = bytes(lines[round % lines.length]);
    for (let count = 1 + random(3); count > 0; count--) line[random(line.length)] = random(256);
    const cut = random(4) === 0 ? line.subarray(0, random(line.length)) : line;
    const takers = [
      () => new AttachListener().receive(cut),
      () => new AttachAsker("ssh:far", DIRECT).receive(cut),
      () => {
        const asker: AttachAsker = new AttachAsker("ssh:far", DIRECT);
        asker.receive(bytes(GREETING));
        return asker.receive(cut);
      },
    ];
    for (const take of takers) {
      try {
        take();
      } catch (error) {
        assert.ok(error instanceof TransportError && error.party === "peer", String(error));
        assert.ok(error.message.length < 2 * MAX_ATTACH_LINE_BYTES);
        refused++;
      }
    }
  }
  assert.ok(refused > 1600, `${refused}`);
});
