import assert from "node:assert/strict";
import { TransportError } from "../../errors.ts";
import { BareAgent, decodeStatus, decodeVerification } from "./bare_agent.ts";

const text = new TextEncoder();

/** An agent, and the last line that it has sent. */
function talk() {
  const sent: string[] = [];
  const agent = new BareAgent("agent", (bytes) => {
    sent.push(new TextDecoder().decode(bytes).trim());
    return Promise.resolve();
  }, () => "count 7");
  return { agent, sent };
}

Deno.test("an answer belongs to what was asked with its id, in whatever pieces it comes", async () => {
  const { agent, sent } = talk();
  const first = agent.ask("status");
  const second = agent.ask("verify");
  const [a, b] = sent.map((line) => line.split(" ")[0]);
  assert.notEqual(a, b);
  agent.receive(text.encode(`tus count=1\nelse-1 ok\n${b} verify o`));
  agent.receive(text.encode(`k\n${a} status\n`));
  assert.equal(await first, "status");
  assert.equal(await second, "verify ok");
});

Deno.test("a guest that does not answer, or is gone, is quoted", async () => {
  const { agent } = talk();
  await assert.rejects(agent.ask("status", 1), /no answer to "status" in 1 ms; .*count 7/);
  const asked = agent.ask("status");
  agent.end();
  await assert.rejects(asked, TransportError);
  await assert.rejects(agent.ask("status"), /is gone/);
});

Deno.test("a verification is decoded, good or bad, and nothing else is", () => {
  const good = "verify ok count=12 sum=00ff00ff boot=12345678";
  assert.deepEqual(decodeVerification(good), {
    ok: true,
    count: 12,
    sum: "00ff00ff",
    boot: "12345678",
    text: good,
  });
  assert.equal(decodeVerification(good.replace("ok", "BAD at=00200008")).ok, false);
  for (const wrong of ["", "ok", "verify ok", good.slice(0, -1), `${good} `]) {
    assert.throws(() => decodeVerification(wrong), TransportError, wrong);
  }
});

Deno.test("a status has numbers, and words where the guest has words", () => {
  const status = decodeStatus("status count=12 timer=pit boot=12345678");
  assert.deepEqual({ ...status }, { count: 12, timer: "pit", boot: "12345678" });
  assert.throws(() => decodeStatus("unknown"), TransportError);
});
