import assert from "node:assert/strict";
import { StateError, TransportError, UsageError, WireError } from "../errors.ts";
import { formatFailure, wantedLogFormat } from "./format_failure.ts";

Deno.test("a failure says the message and, on a line of its own, what to do", () => {
  assert.equal(
    formatFailure(new UsageError("no such thing", { hint: "use another" }), "text", 0),
    "kemari: no such thing\nhint: use another\n",
  );
  const lost = new TransportError("tcp:h:1", "connect", "connection refused");
  assert.equal(formatFailure(lost, "text", 0), "kemari: tcp:h:1: connection refused\n");
});

Deno.test("a failure in JSON is one line with what scripts match on", () => {
  const error = new WireError("migration", 12, "bad-magic", "found 0x00\nexpected QEVM", {
    hint: "send a migration stream",
  });
  const text = formatFailure(error, "json", 0);
  assert.equal(text.indexOf("\n"), text.length - 1);
  assert.deepEqual(JSON.parse(text), {
    time: "1970-01-01T00:00:00.000Z",
    level: "error",
    logger: "kemari",
    message: "migration stream, offset 12: found 0x00\\nexpected QEVM (bad-magic)",
    hint: "send a migration stream",
    error: "WireError",
    exitCode: 3,
    party: "qemu",
    protocol: "migration",
    offset: 12,
    fault: "bad-magic",
  });
});

Deno.test("a bug shows its stack and asks to be reported", () => {
  for (const bug of [new StateError("commit twice"), new TypeError("commit twice")]) {
    const text = formatFailure(bug, "text", 0);
    assert.match(text, /^kemari: commit twice\n/);
    assert.match(text, /failure_test\.ts/);
    assert.match(text, /Please report it/);
    const line = JSON.parse(formatFailure(bug, "json", 0));
    assert.equal(line.exitCode, 70);
    assert.match(line.stack, /failure_test\.ts/);
  }
});

Deno.test("whatever is thrown can be said", () => {
  for (const thrown of [undefined, null, 3, "text", { a: 1 }]) {
    assert.match(formatFailure(thrown, "text", 0), /^kemari: /);
    assert.equal(JSON.parse(formatFailure(thrown, "json", 0)).exitCode, 70);
  }
});

Deno.test("the log format is found even where the rest makes no sense", () => {
  assert.equal(wantedLogFormat(["snd", "--log-format", "json", "--what"]), "json");
  assert.equal(wantedLogFormat(["send", "--log-format=json"]), "json");
  assert.equal(wantedLogFormat(["send", "--log-format", "text"]), "text");
  assert.equal(wantedLogFormat(["send", "--log-format"]), "text");
  assert.equal(wantedLogFormat([]), "text");
});

Deno.test("whatever was thrown, its words move no cursor and forge no line", () => {
  const words = "no\x1b[2J\u202e\nkemari: all is well";
  const shown = "no\\u{1b}[2J\\u{202e}\\nkemari: all is well";
  for (const error of [new UsageError(words, { hint: words }), new TypeError(words), words]) {
    const text = formatFailure(error, "text", 0);
    assert.ok(text.startsWith(`kemari: ${shown}\n`), text);
    assert.doesNotMatch(text.replaceAll("\n", ""), /[\p{C}\u202e]/u);
    const line = JSON.parse(formatFailure(error, "json", 0));
    assert.equal(line.message, shown);
  }
  const { hint } = new UsageError("x", { hint: words });
  assert.equal(hint, shown);
});
