/** Every step that can be made in a small world, and what it may not come to. */
import { put, settle, spend, withHost } from "./settle.ts";
import { askSteps, isSame } from "./ask_steps.ts";
import {
  type Add,
  Broken,
  type Down,
  isAlive,
  type Link,
  NAMES,
  type Primary,
  type Rules,
  type Secondary,
  sideOf,
  VM,
  type World,
} from "./world.ts";

/** One step. */
export interface Step {
  readonly name: string;
  readonly world: World;
  /** Trouble: what need not happen. */
  readonly isFault: boolean;
}

/** Every step that can be made. @throws {Broken} if one breaks a promise, naming the step. */
export function stepsFrom(world: World, rules: Rules): Step[] {
  const steps: Step[] = [];
  const step: Add = (name, next, isFault = false) => {
    try {
      steps.push({ name, world: settle(next, rules), isFault });
    } catch (error) {
      if (error instanceof Broken) error.step = name;
      throw error;
    }
  };
  world.hosts.forEach((process, host) => {
    if (process.is === "primary") primarySteps(world, rules, host, process, step);
    if (process.is === "secondary") secondarySteps(world, host, process, step);
    askSteps(world, rules, host, process, step);
    if (process.is !== "off") {
      if (world.left.crashes > 0) {
        step(`${NAMES[host]} dies`, crash(world, host), true);
      }
    } else {
      step(`${NAMES[host]} starts as a secondary`, start(world, host), true);
      if (world.left.boots > 0) {
        step(`${NAMES[host]} boots its VM`, boot(world, rules, host), true);
      }
    }
  });
  world.links.forEach((link, i) => linkSteps(world, rules, link, i, step));
  world.late.forEach((ask, i) => {
    if (ask.do !== "swap") return;
    const late = world.late.filter((_, j) => j !== i);
    if (!rules.isEqual(world.register, ask.from)) return;
    step("a late request is done", { ...world, late, register: ask.to });
  });
  return steps;
}

function primarySteps(world: World, rules: Rules, host: number, process: Primary, step: Add): void {
  const name = NAMES[host];
  const { claim, line, epoch } = process;
  const linkAt = world.links.findIndex((link) => link.from === host && link.fromHasIt);
  const link = world.links[linkAt];
  if (rules.runs(claim) && epoch < world.left.epochs) {
    step(`${name}'s VM goes on`, withHost(world, host, { ...process, epoch: epoch + 1 }));
  }
  if (link !== undefined) {
    const isFirst = claim.at === "alone";
    const mayFill = isFirst || claim.at === "filling" || claim.at === "joining" ||
      claim.at === "protected";
    const isNew = process.sent < epoch || process.sent === 0;
    if (mayFill && isNew && link.down.length < 2) {
      const filled = isFirst ? rules.told(claim, { is: "fill" }, sideOf(world, host)) : claim;
      const down: Down[] = [...link.down, { of: "transaction", line, epoch }];
      step(`${name} sends epoch ${epoch}`, {
        ...withHost(world, host, { ...process, claim: filled, sent: epoch }),
        links: put(world.links, linkAt, { ...link, down }),
      });
    }
    const isWhole = !rules.givesWhole || process.acked === epoch;
    if (claim.at === "protected" && isWhole && world.left.handovers > 0) {
      const down: Down[] = [...link.down, { of: "handover", epoch }];
      step(
        `${name} hands over`,
        {
          ...withHost(spend(world, "handovers"), host, {
            ...process,
            claim: rules.told(claim, { is: "give" }, sideOf(world, host)),
          }),
          links: put(world.links, linkAt, { ...link, down }),
        },
      );
    }
  } else if (claim.at === "alone" && world.left.sessions > 0) {
    world.hosts.forEach((other, to) => {
      if (other.is !== "secondary" || to === host) return;
      if (world.links.some((each) => each.to === to && each.toHasIt)) return;
      if (!rules.mayAcknowledge(other.claim)) return;
      const joined: World = withHost(
        withHost(spend(world, "sessions"), to, {
          ...other,
          claim: rules.toldSecondary(other.claim, { is: "session" }, sideOf(world, to)),
          line: 0,
          epoch: 0,
          ready: undefined,
          asked: undefined,
        }),
        host,
        { ...process, sent: 0, acked: 0 },
      );
      step(`${name} connects to ${NAMES[to]}`, {
        ...joined,
        links: [...world.links, {
          from: host,
          to,
          down: [],
          up: [],
          isCut: false,
          fromHasIt: true,
          toHasIt: true,
        }],
      });
    });
  }
  if (claim.at === "giving" && world.left.timeouts > 0) {
    step(
      `${name} takes its VM back`,
      withHost(spend(world, "timeouts"), host, {
        ...process,
        claim: rules.told(claim, { is: "take-back" }, sideOf(world, host)),
      }),
      true,
    );
  }
}

function secondarySteps(
  world: World,
  host: number,
  process: Secondary,
  step: Add,
): void {
  if (process.claim.at !== "active") return;
  step(
    `${NAMES[host]} takes over from epoch ${process.ready ?? process.epoch}`,
    takeOver(world, host, process),
  );
}

/** The replica runs: a new line. */
function takeOver(world: World, host: number, process: Secondary): World {
  const { line, claim } = process;
  const epoch = process.ready ?? process.epoch;
  if (claim.at !== "active") throw new Error("not active");
  if (line === 0) throw new Broken(`${NAMES[host]} takes over with nothing`);
  if (world.takenOver[line] !== undefined) throw new Broken(`line ${line} is taken over twice`);
  if (world.emitted[line] > epoch) {
    throw new Broken(
      `${NAMES[host]} takes over from epoch ${epoch}, but epoch ${world.emitted[line]} was let out`,
    );
  }
  const born = world.emitted.length;
  const next: World = {
    ...withHost(world, host, {
      is: "primary",
      claim: { at: "alone", register: claim.register },
      line: born,
      epoch,
      sent: 0,
      acked: 0,
      asked: undefined,
    }),
    links: closeFor(world.links, host),
    emitted: [...world.emitted, epoch],
    takenOver: [...put(world.takenOver, line, epoch), undefined],
  };
  return next;
}

function linkSteps(world: World, rules: Rules, link: Link, i: number, step: Add): void {
  const set = (next: World, changed: Link): World => ({
    ...next,
    links: put(next.links, i, changed).filter(isAlive),
  });
  const between = `${NAMES[link.from]}–${NAMES[link.to]}`;
  if (!link.isCut && world.left.cuts > 0) {
    step(`${between} is cut`, set(spend(world, "cuts"), { ...link, isCut: true }), true);
  }
  const to = world.hosts[link.to];
  if (link.toHasIt && to.is === "secondary") {
    if (link.down.length > 0) {
      const [message, ...down] = link.down;
      const heard = hear(world, rules, link.to, to, message);
      const up = heard.acknowledged === undefined ? link.up : [...link.up, heard.acknowledged];
      step(`${NAMES[link.to]} hears: ${message.of}`, set(heard.world, { ...link, down, up }));
    }
    if (!link.isCut && world.left.timeouts > 0 && to.claim.at === "armed") {
      const claim = rules.toldSecondary(to.claim, { is: "claim" }, sideOf(world, link.to));
      const claimed = { ...to, claim, ready: to.epoch };
      const next = withHost(spend(world, "timeouts"), link.to, claimed);
      step(`${NAMES[link.to]} hears nothing for too long`, next, true);
    }
    if (link.isCut) {
      const claim = rules.toldSecondary(to.claim, { is: "claim" }, sideOf(world, link.to));
      step(
        `${NAMES[link.to]} finds the link lost`,
        set(
          withHost(world, link.to, {
            ...to,
            claim,
            ready: claim.at === "asking" ? to.ready ?? to.epoch : undefined,
          }),
          {
            ...link,
            toHasIt: false,
            down: [],
          },
        ),
      );
    }
  }
  const from = world.hosts[link.from];
  if (link.fromHasIt && from.is === "primary") {
    if (link.up.length > 0) {
      const [acked, ...up] = link.up;
      const claim = from.claim.at === "filling"
        ? rules.told(
          from.claim,
          { is: "whole", secondary: sideOf(world, link.to) },
          sideOf(world, link.from),
        )
        : from.claim;
      step(
        `${NAMES[link.from]} hears: epoch ${acked}`,
        set(withHost(world, link.from, { ...from, claim, acked }), { ...link, up }),
      );
    }
    if (link.isCut) {
      const claim = rules.told(from.claim, { is: "lost" }, sideOf(world, link.from));
      step(
        `${NAMES[link.from]} finds the link lost`,
        set(withHost(world, link.from, { ...from, claim, sent: 0 }), {
          ...link,
          fromHasIt: false,
          up: [],
        }),
      );
    }
  }
}

function hear(
  world: World,
  rules: Rules,
  host: number,
  process: Secondary,
  message: Down,
): { world: World; acknowledged?: number } {
  const me = sideOf(world, host);
  switch (message.of) {
    case "transaction":
      if (!rules.mayAcknowledge(process.claim)) return { world };
      return {
        world: withHost(world, host, { ...process, line: message.line, epoch: message.epoch }),
        acknowledged: message.epoch,
      };
    case "arm": {
      if (message.register.state !== "protected") return { world };
      const news = { is: "arm", register: message.register } as const;
      const next = withHost(world, host, {
        ...process,
        claim: rules.toldSecondary(process.claim, news, me),
      });
      return { world: next };
    }
    case "handover":
      if (process.epoch !== message.epoch) {
        throw new Broken("a handover without its last transaction");
      }
      return {
        world: withHost(world, host, {
          ...process,
          claim: rules.toldSecondary(process.claim, { is: "handed-over" }, me),
        }),
      };
    case "named": {
      if (message.register.state !== "alone") return { world };
      const news = { is: "named", register: message.register } as const;
      return {
        world: withHost(world, host, {
          ...process,
          claim: rules.toldSecondary(process.claim, news, me),
        }),
      };
    }
  }
}

function closeFor(links: readonly Link[], host: number): Link[] {
  return links.map((link) => {
    if (link.from === host) return { ...link, fromHasIt: false, isCut: true };
    return link.to === host ? { ...link, toHasIt: false, isCut: true } : link;
  }).filter(isAlive);
}

function crash(world: World, host: number): World {
  const process = world.hosts[host];
  const asked = process.is === "off" ? undefined : process.asked;
  const isLate = asked !== undefined && asked.answer === undefined && asked.ask.do === "swap" &&
    !world.late.some((each) => isSame(each, asked.ask));
  return {
    ...withHost(spend(world, "crashes"), host, { is: "off" }),
    links: closeFor(world.links, host),
    late: isLate ? [...world.late, asked.ask] : world.late,
  };
}

function start(world: World, host: number): World {
  return {
    ...withHost(world, host, {
      is: "secondary",
      claim: { at: "unarmed" },
      line: 0,
      epoch: 0,
      asked: undefined,
    }),
    instances: put(world.instances, host, world.instances[host] + 1),
  };
}

/** The VM boots from its disk: a line of its own, which nobody has heard of. */
function boot(world: World, rules: Rules, host: number): World {
  const instances = put(world.instances, host, world.instances[host] + 1);
  return {
    ...withHost(spend(world, "boots"), host, {
      is: "primary",
      claim: rules.startPrimary(VM),
      line: world.emitted.length,
      epoch: 1,
      sent: 0,
      acked: 0,
      asked: undefined,
    }),
    instances,
    emitted: [...world.emitted, 0],
    takenOver: [...world.takenOver, undefined],
  };
}
