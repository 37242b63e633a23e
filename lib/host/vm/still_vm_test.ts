import assert from "node:assert/strict";
import type { QmpCommand } from "../../qmp/codec.ts";
import { cString, libc } from "../system/libc.ts";
import type { QmpClient } from "./qmp_client.ts";
import { StillVm, wasStandingStill } from "./still_vm.ts";
import { delay } from "../system/delay.ts";

/** A VM of which only the commands are noted; each waits for its answer. */
class Asked {
  readonly commands: string[] = [];
  #answers: (() => void)[] = [];
  constructor(private readonly running: boolean) {}

  run(command: QmpCommand): Promise<unknown> {
    this.commands.push(command.execute);
    return new Promise((resolve) => {
      this.#answers.push(() => resolve({ running: this.running }));
    });
  }
  async answer(): Promise<void> {
    while (this.#answers.length === 0) await delay(1);
    this.#answers.shift()!();
  }
}

async function withVm(
  accelerator: string,
  running: boolean,
  use: (still: StillVm, asked: Asked, folder: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "kemari-still-" });
  const asked = new Asked(running);
  try {
    await use(new StillVm(asked as unknown as QmpClient, { accelerator }, folder), asked, folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("only tcg's VM is stopped, before its migration and until it runs again", async () => {
  await withVm("kvm", true, async (still, asked) => {
    assert.equal(await still.start(() => Promise.resolve(7)), 7);
    assert.deepEqual([asked.commands, still.isHeld], [[], false]);
  });
  await withVm("tcg", true, async (still, asked, folder) => {
    const start = still.start(() => {
      assert.deepEqual(asked.commands, ["query-status", "stop"]);
      return Promise.resolve(7);
    });
    await asked.answer();
    await asked.answer();
    assert.equal(await start, 7);
    assert.deepEqual([still.isHeld, await wasStandingStill(folder)], [true, true]);
    still.resumed();
    assert.deepEqual([still.isHeld, await wasStandingStill(folder)], [false, false]);
  });
});

Deno.test("a VM that somebody else has stopped is not held by us", async () => {
  await withVm("tcg", false, async (still, asked, folder) => {
    const start = still.start(() => Promise.resolve(7));
    await asked.answer();
    assert.equal(await start, 7);
    assert.deepEqual(asked.commands, ["query-status"]);
    assert.deepEqual([still.isHeld, await wasStandingStill(folder)], [false, false]);
  });
});

Deno.test("a start that is given up begins nothing, and has stopped the VM or not when that is known", async () => {
  await withVm("tcg", true, async (still, asked) => {
    const start = still.start(() => assert.fail("nobody waits for it"));
    start.catch(() => {});
    let over = false;
    const givenUp = still.giveUp().then(() => over = true);
    await asked.answer();
    await delay(5);
    assert.equal(over, false);
    await asked.answer();
    await givenUp;
    assert.ok(still.isHeld);
    await assert.rejects(start, { name: "AbortError" });
  });
});

Deno.test("what a start that was given up has opened is closed", async () => {
  await withVm("kvm", true, async (still) => {
    const fd = libc().open(cString("/dev/null"), 0, 0);
    assert.equal(linkOf(fd), "/dev/null");
    const start = still.start(async (givenUp) => {
      await new Promise((resolve) => givenUp.addEventListener("abort", resolve));
      return fd;
    });
    start.catch(() => {});
    await still.giveUp();
    await assert.rejects(start);
    assert.notEqual(linkOf(fd), "/dev/null");
  });
});

function linkOf(fd: number): string | undefined {
  try {
    return Deno.readLinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return undefined;
  }
}
