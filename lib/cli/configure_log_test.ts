import assert from "node:assert/strict";
import { getLogger, reset } from "@logtape/logtape";
import { configureLog } from "./configure_log.ts";
import type { LogFormat } from "./options/logging.ts";

/** What a logger wrote while `act` ran. */
async function written(
  logFormat: LogFormat,
  quiet: boolean,
  act: (log: ReturnType<typeof getLogger>) => void,
): Promise<string> {
  let text = "";
  await configureLog({ logFormat, quiet }, (line) => void (text += line));
  try {
    act(getLogger(["kemari", "send"]));
  } finally {
    await reset();
  }
  return text;
}

Deno.test("a log line in text names the command and what is worse than information", async () => {
  const text = await written("text", false, (log) => {
    log.debug("hidden");
    log.info("connected to {peer}, {pages} pages", { peer: "tcp:h:1", pages: 12n });
    log.warn("slow peer");
    log.error("lost: {error}", { error: new Error("no answer") });
  });
  assert.equal(
    text,
    "kemari send: connected to tcp:h:1, 12 pages\n" +
      "kemari send: warning: slow peer\n" +
      "kemari send: error: lost: no answer\n",
  );
});

Deno.test("a quiet log keeps warnings and errors", async () => {
  const text = await written("text", true, (log) => {
    log.info("connected");
    log.warn("slow peer");
  });
  assert.equal(text, "kemari send: warning: slow peer\n");
});

Deno.test("a log line in JSON carries the properties beside the message", async () => {
  const text = await written("json", false, (log) => {
    log.info("committed {transaction}", {
      transaction: 7n,
      big: 2n ** 60n,
      error: new Error("why"),
      level: "not mine",
    });
  });
  const { time, ...rest } = JSON.parse(text);
  assert.ok(Math.abs(Date.parse(time) - Date.now()) < 60_000);
  assert.deepEqual(rest, {
    level: "info",
    logger: "kemari.send",
    message: "committed 7",
    transaction: 7,
    big: "1152921504606846976",
    error: "why",
  });
});

Deno.test("what a value says is shown, and not obeyed", async () => {
  const words = "a\x1b[2J\nkemari send: primary\u2028\u202e";
  const shown = "a\\u{1b}[2J\\nkemari send: primary\\u{2028}\\u{202e}";
  for (const format of ["text", "json"] as const) {
    const text = await written(format, false, (log) => {
      log.info("{name} {list} {error}", {
        name: words,
        list: [words],
        error: new Error(words),
      });
    });
    assert.equal(text.indexOf("\n"), text.length - 1);
    assert.doesNotMatch(text.slice(0, -1), /[\p{C}\p{Zl}]/u);
    if (format === "json") assert.equal(JSON.parse(text).name, shown);
    else assert.ok(text.startsWith(`kemari send: ${shown} ["`), text);
  }
});
