/** Searches a world to the end: breadth first, so that a broken promise comes with its shortest story. */
import { stepsFrom } from "./steps.ts";
import { Broken, keyOf, type Rules, type World } from "./world.ts";

export interface Found {
  /** Worlds seen. */
  readonly states: number;
  readonly steps: number;
  /** The steps that lead to a broken promise, and which; undefined if none is. */
  readonly broken?: { readonly story: readonly string[]; readonly why: string };
  /** A world in which everything was answered and delivered, somebody has the VM, and nobody may run. */
  readonly stuck?: { readonly story: readonly string[] };
}

/**
 * @param most Gives up beyond so many worlds: the search is to end by itself.
 * @throws {Error} if there are more.
 */
export function search(first: World, rules: Rules, most: number): Found {
  const index = new Map<string, number>();
  const parents: number[] = [];
  const names: string[] = [];
  let wave: (readonly [number, World])[] = [[0, first]];
  index.set(keyOf(first), 0);
  parents.push(-1);
  names.push("");
  let steps = 0;
  let stuck: number | undefined;
  const storyOf = (at: number): string[] => {
    const story: string[] = [];
    for (; at > 0; at = parents[at]) story.unshift(names[at]);
    return story;
  };
  while (wave.length > 0) {
    const next: (readonly [number, World])[] = [];
    for (const [at, world] of wave) {
      let can;
      try {
        can = stepsFrom(world, rules);
      } catch (error) {
        if (!(error instanceof Broken)) throw error;
        return {
          states: index.size,
          steps,
          broken: {
            story: [...storyOf(at), error.step].filter((name) => name !== ""),
            why: error.message,
          },
        };
      }
      if (stuck === undefined && can.every((step) => step.isFault) && isStuck(world, rules)) {
        stuck = at;
      }
      for (const step of can) {
        steps++;
        const key = keyOf(step.world);
        if (index.has(key)) continue;
        index.set(key, parents.length);
        next.push([parents.length, step.world]);
        parents.push(at);
        names.push(step.name);
      }
    }
    if (index.size > most) throw new Error(`more than ${most} worlds`);
    wave = next;
  }
  return {
    states: index.size,
    steps,
    ...(stuck === undefined ? {} : { stuck: { story: storyOf(stuck) } }),
  };
}

/** Whether the VM is somewhere, and nobody may ever speak. */
function isStuck(world: World, rules: Rules): boolean {
  const speaks = world.hosts.some((process) => {
    if (process.is !== "primary") return false;
    if (rules.speaks(process.claim) === "everything") return true;
    return process.claim.at !== "starting" && process.claim.at !== "claiming" &&
      rules.runs(process.claim);
  });
  if (speaks) return false;
  return world.hosts.some((process) =>
    process.is === "primary" || process.is === "secondary" && process.claim.at !== "unarmed" &&
      process.claim.at !== "beaten"
  );
}
