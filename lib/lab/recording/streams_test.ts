import assert from "node:assert/strict";
import { UsageError } from "../../errors.ts";
import { listStreams, loadAnswers, loadStream } from "./streams.ts";

Deno.test("every recording is what was recorded, and has its page", () => {
  assert.ok(listStreams().length > 0);
  for (const info of listStreams()) {
    const bytes = loadStream(info.name);
    assert.equal(bytes.length, info.fromQemu.lengthBytes, info.name);
    assert.equal(new DataView(bytes.buffer).getUint32(0), 0x5145564d, info.name);
    const page = Deno.readTextFileSync(
      new URL(`../../../fixtures/streams/${info.name}.md`, import.meta.url),
    );
    assert.ok(page.includes(info.fromQemu.sha256), info.name);
    const answers = loadAnswers(info.name);
    assert.equal(answers.length, info.fromKemari?.lengthBytes ?? 0, info.name);
    if (!info.turns) continue;
    const sum = (from: string) =>
      info.turns!.filter((turn) => turn.from === from)
        .reduce((total, turn) => total + turn.lengthBytes, 0);
    assert.equal(sum("qemu"), bytes.length, info.name);
    assert.equal(sum("kemari"), answers.length, info.name);
  }
});

Deno.test("the recordings stay small enough for a repository", () => {
  let totalBytes = 0;
  for (const entry of Deno.readDirSync(new URL("../../../fixtures/streams/", import.meta.url))) {
    totalBytes +=
      Deno.statSync(new URL(`../../../fixtures/streams/${entry.name}`, import.meta.url)).size;
  }
  assert.ok(totalBytes < 5_000_000, `${totalBytes} bytes`);
});

Deno.test("loadStream names what there is when asked for what there is not", () => {
  assert.throws(
    () => loadStream("no-such"),
    (error) => error instanceof UsageError && error.hint!.includes("plain-11.1-bios"),
  );
});
