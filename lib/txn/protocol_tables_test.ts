/** docs/PROTOCOL.md says of frames what the code does with them. */
import assert from "node:assert/strict";
import { NACK_REASON } from "./wire.ts";
import {
  cellsOf,
  featureTable,
  frameTable,
  markdown,
  placeTable,
} from "./testing/protocol_tables.ts";

const PROTOCOL = new URL("../../docs/PROTOCOL.md", import.meta.url);
const TABLES: Readonly<Record<string, string[][]>> = {
  frames: frameTable(),
  places: placeTable(),
  features: featureTable(),
};

/** What stands between a table's markers, or is put there. */
function between(name: string, put?: string): string {
  const text = Deno.readTextFileSync(PROTOCOL);
  const begin = `<!-- table: ${name} -->\n`;
  const start = text.indexOf(begin);
  const end = text.indexOf("<!-- end -->", start);
  assert.ok(start >= 0 && end >= 0, `there is a table ${name}`);
  const from = start + begin.length;
  if (put !== undefined) {
    Deno.writeTextFileSync(PROTOCOL, `${text.slice(0, from)}\n${put}\n${text.slice(end)}`);
  }
  return text.slice(from, end);
}

for (const [name, table] of Object.entries(TABLES)) {
  Deno.test(`docs/PROTOCOL.md has the table of ${name} that the code goes by`, () => {
    // `deno fmt` is to be run behind it.
    if (Deno.env.get("KEMARI_RECORD") === "1") between(name, markdown(table));
    assert.deepEqual(cellsOf(between(name)), table);
  });
}

Deno.test("docs/PROTOCOL.md has the reasons of NACK, and no others", () => {
  const [, , ...rows] = cellsOf(between("reasons"));
  const reasons = rows.map(([code, name]) => [name, Number(code)]);
  assert.deepEqual(reasons, Object.entries(NACK_REASON));
});
