import assert from "node:assert/strict";
import { UsageError } from "../../errors.ts";
import { parseArbiterAddress } from "./arbiter_address.ts";

Deno.test("an arbiter's address", () => {
  assert.deepEqual(parseArbiterAddress("etcd:https://[::1]:2379"), {
    kind: "etcd",
    urls: ["https://[::1]:2379"],
    prefix: "kemari",
    text: "etcd:https://[::1]:2379",
  });
  const pair = parseArbiterAddress("etcd:http://a:2379/,http://b:2379/ha/vms/");
  assert.deepEqual(pair.kind === "etcd" && [pair.urls, pair.prefix], [
    ["http://a:2379", "http://b:2379"],
    "ha/vms",
  ]);
  assert.equal(parseArbiterAddress("exec:/usr/local/bin/arbiter -x").kind, "exec");
});

const BAD: readonly (readonly [string, RegExp])[] = [
  ["consul:http://a", /is no arbiter/],
  ["etcd:", /is no etcd's URL/],
  ["etcd:a:2379", /is no etcd's URL/],
  ["etcd:http://a:2379,", /"" is no etcd's URL/],
  ["etcd:ftp://a", /is no etcd's URL/],
  ["etcd:http://a/x?y=1", /is no etcd's URL/],
  ["etcd:http://a/x,http://b", /behind the last URL/],
  ["exec: ", /names no command/],
];

for (const [text, message] of BAD) {
  Deno.test(`an arbiter's address is refused: ${text}`, () => {
    assert.throws(() => parseArbiterAddress(text), (error) => {
      return error instanceof UsageError && message.test(error.message) && error.hint !== undefined;
    });
  });
}

Deno.test("a password in an arbiter's URL is refused, and not repeated", () => {
  assert.throws(() => parseArbiterAddress("etcd:http://root:secret@a:2379"), (error) => {
    assert.ok(error instanceof UsageError);
    assert.doesNotMatch(error.message, /secret/);
    assert.match(error.hint!, /--arbiter-user/);
    return true;
  });
});
