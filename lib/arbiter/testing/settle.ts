/** What every step in a small world ends with: what may leave does, and no promise may be broken. */
import { isEqual, type Register } from "../register.ts";
import {
  Broken,
  type Budget,
  type Down,
  NAMES,
  type Process,
  type Rules,
  type World,
} from "./world.ts";

/** A list with another value at one place. */
export function put<T>(list: readonly T[], at: number, value: T): T[] {
  const copy = [...list];
  copy[at] = value;
  return copy;
}

/** The world with another process at a host. */
export function withHost(world: World, host: number, process: Process): World {
  return { ...world, hosts: put(world.hosts, host, process) };
}

/** Uses up one of a kind of trouble. */
export function spend(world: World, what: keyof Budget): World {
  return { ...world, left: { ...world.left, [what]: world.left[what] - 1 } };
}

/** Tells a primary's secondary that the register speaks of it. */
export function arm(world: World, host: number, register: Register): World {
  return toSecondary(world, host, { of: "arm", register });
}

/** Sends over a primary's link, if it has one. */
export function toSecondary(world: World, host: number, message: Down): World {
  return {
    ...world,
    links: world.links.map((link) =>
      link.from === host && link.fromHasIt ? { ...link, down: [...link.down, message] } : link
    ),
  };
}

/**
 * Lets out all that may be let out: sooner is worse for whoever takes over, and later is no different,
 * since what may leave has been acknowledged, or nobody else may speak.
 */
function emitAll(world: World, rules: Rules): World {
  let { emitted } = world;
  world.hosts.forEach((process, host) => {
    if (process.is !== "primary") return;
    const { line } = process;
    const may = rules.speaks(process.claim);
    const upTo = may === "everything" ? process.epoch : may === "acknowledged" ? process.acked : 0;
    if (upTo <= emitted[line]) return;
    const from = world.takenOver[line];
    if (from !== undefined && upTo > from) {
      throw new Broken(
        `${NAMES[host]} lets out epoch ${upTo}, but the VM was taken over from epoch ${from}`,
      );
    }
    emitted = put(emitted, line, upTo);
  });
  return emitted === world.emitted ? world : { ...world, emitted };
}

/**
 * The world after a step, without what nobody can tell: what may be let out is, what is to be asked is
 * asked, and requests that can never be done any more are forgotten.
 *
 * @throws {Broken}
 */
export function settle(world: World, rules: Rules): World {
  let next = world;
  next.hosts.forEach((process, host) => {
    if (process.is === "off" || process.asked !== undefined) return;
    const ask = process.is === "primary"
      ? rules.askOf(process.claim)
      : rules.askOfSecondary(process.claim);
    if (ask === undefined) return;
    next = withHost(next, host, { ...process, asked: { ask } });
    if (rules.armsEarly && process.is === "primary" && process.claim.at === "joining") {
      next = arm(next, host, process.claim.to);
    }
  });
  if (next.late.length > 0 && rules.isEqual === isEqual) {
    const generation = next.register?.generation ?? 0;
    const late = next.late.filter((ask) =>
      ask.do === "swap" && (ask.from?.generation ?? 0) >= generation
    );
    if (late.length < next.late.length) next = { ...next, late };
  }
  next = emitAll(next, rules);
  checkSpeakers(next, rules);
  return next;
}

/** At most one side speaks freely, and the register names that one. */
function checkSpeakers(world: World, rules: Rules): void {
  const free = world.hosts.flatMap((process, host) =>
    process.is === "primary" && rules.speaks(process.claim) === "everything" ? [host] : []
  );
  if (free.length > 1) {
    throw new Broken(`${free.map((host) => NAMES[host]).join(" and ")} both speak freely`);
  }
  if (!rules.isStrict) return;
  for (const host of free) {
    const { register } = world;
    const isNamed = register?.state === "alone" && register.side.name === NAMES[host];
    if (!isNamed) {
      throw new Broken(`${NAMES[host]} speaks freely, and the register does not name it`);
    }
  }
  for (const process of world.hosts) {
    if (process.is !== "secondary" || process.claim.at !== "armed") continue;
    if (process.claim.register.generation > (world.register?.generation ?? 0)) {
      throw new Broken("a secondary is armed with what the register never held");
    }
  }
}
