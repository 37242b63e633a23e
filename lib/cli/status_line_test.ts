import assert from "node:assert/strict";
import { StatusLine, type StatusMode } from "./status_line.ts";

const ERASE = "\r\x1b[K";

/** A terminal that remembers, and a clock that the test moves. */
function setUp(mode: StatusMode, columns = 80) {
  const screen = { text: "", nowMs: 0 };
  const terminal = {
    write: (text: string) => void (screen.text += text),
    isTerminal: true,
    columns: () => columns,
  };
  return { screen, status: new StatusLine(terminal, mode, () => screen.nowMs) };
}

Deno.test("a status line is redrawn in place", () => {
  const { screen, status } = setUp("redraw");
  status.set("one");
  screen.nowMs = 100;
  status.set("two");
  assert.equal(screen.text, `${ERASE}one${ERASE}two`);
});

Deno.test("a text that comes too soon is drawn with the next call", () => {
  const { screen, status } = setUp("redraw");
  status.set("one");
  screen.nowMs = 50;
  status.set("two");
  assert.equal(screen.text, `${ERASE}one`);
  status.print("kemari send: hello\n");
  assert.equal(screen.text, `${ERASE}one${ERASE}kemari send: hello\n${ERASE}two`);
});

Deno.test("lines are printed untouched while no status line is on screen", () => {
  const { screen, status } = setUp("redraw");
  status.print("kemari send: hello\n");
  status.set("one");
  status.clear();
  status.clear();
  status.print("kemari send: bye\n");
  assert.equal(screen.text, `kemari send: hello\n${ERASE}one${ERASE}kemari send: bye\n`);
});

Deno.test("a hidden status line comes back at once with the next text", () => {
  const { screen, status } = setUp("redraw");
  status.set("one");
  status.hide();
  screen.text += "result\n";
  status.set("two");
  assert.equal(screen.text, `${ERASE}one${ERASE}result\n${ERASE}two`);
});

Deno.test("a status line is cut to the terminal's width, by characters", () => {
  const { screen, status } = setUp("redraw", 6);
  status.set("äöü\nabc");
  assert.equal(screen.text, `${ERASE}äöü …`);
});

Deno.test("away from a terminal each status is a line, at most one a second", () => {
  const { screen, status } = setUp("lines");
  for (screen.nowMs = 0; screen.nowMs <= 2000; screen.nowMs += 250) status.set(`${screen.nowMs}`);
  status.print("log\n");
  status.clear();
  assert.equal(screen.text, "0\n1000\n2000\nlog\n");
});

Deno.test("a status line that is off writes nothing", () => {
  const { screen, status } = setUp("off");
  status.set("one");
  status.clear();
  assert.equal(screen.text, "");
  assert.equal(status.isShown, false);
});
