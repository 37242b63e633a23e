/**
 * For tests: loaded before kemari, makes it break one of its promises, to see that a drill notices.
 *
 * `deno run --preload mutant.ts?breaks=PROMISE main.ts ARGS…`
 */
import { QmpClient } from "../../host/vm/qmp_client.ts";
import { PrimaryDiskTap } from "../../replica/events/primary_disk_tap.ts";
import { HeldFrames } from "../../replica/events/held_frames.ts";
import { MemoryPages } from "../../replica/pages/page_store.ts";

/** One in so many is forgotten. */
const LOST_EVERY = 7;

/** What each breaks. */
const MUTANTS: Readonly<Record<string, () => void>> = {
  /** Output waits for the commit of what produced it. */
  "early-output": () => {
    HeldFrames.prototype.hold = () => {};
  },
  /** Every write is at the secondary when its transaction is. */
  "lost-write": () => {
    const take = PrimaryDiskTap.prototype.takeEvents;
    let seen = 0;
    PrimaryDiskTap.prototype.takeEvents = function () {
      return take.call(this).filter(({ kind }) => kind !== "write" || ++seen % LOST_EVERY !== 0);
    };
  },
  /** Every page is at the secondary when its transaction is. */
  "lost-page": () => {
    const { put, page } = MemoryPages.prototype;
    let seen = 0;
    MemoryPages.prototype.put = function (block, number, slot) {
      const isLost = page.call(this, block, number) !== undefined && ++seen % LOST_EVERY === 0;
      if (!isLost) put.call(this, block, number, slot);
    };
  },
  /** A primary that has lost its secondary, and is to stop then, stops its VM by itself. */
  "no-stop": () => {
    const { run } = QmpClient.prototype;
    let stops = 0;
    QmpClient.prototype.run = function (command, options) {
      // The first one comes before the migration.
      const isLost = command.execute === "stop" && ++stops > 1;
      return isLost ? Promise.resolve({}) : run.call(this, command, options);
    };
  },
};

MUTANTS[new URL(import.meta.url).searchParams.get("breaks")!]();
