import assert from "node:assert/strict";
import { waitingWords } from "./session_end_words.ts";

Deno.test("kemari failover is named only where it can reach recv", () => {
  const words = (controlled: boolean) =>
    waitingWords(
      { do: "wait", why: "lost", isLoud: false },
      "it is gone",
      7,
      undefined,
      controlled,
    );
  assert.match(words(true), /run kemari failover$/);
  assert.equal(
    words(false),
    "sender lost: it is gone; keeping transaction 7: a sender may come back",
  );
});
