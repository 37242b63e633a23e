/** What becomes of what is asked of the arbiter: heard at once, late, or never; and what the answer does. */
import type { Answer, Ask } from "../claim.ts";
import { isEqual } from "../register.ts";
import { arm, spend, toSecondary, withHost } from "./settle.ts";
import {
  type Add,
  type Asked,
  isAlive,
  NAMES,
  type Primary,
  type Process,
  type Rules,
  type Secondary,
  sideOf,
  type World,
} from "./world.ts";

/** What may become of what a process has asked of the arbiter. */
export function askSteps(
  world: World,
  rules: Rules,
  host: number,
  process: Process,
  step: Add,
): void {
  if (process.is === "off" || process.asked === undefined) return;
  const name = NAMES[host];
  const { asked } = process;
  if (asked.answer === undefined) {
    const answer = answerOf(world, asked.ask, rules);
    const register = answer.is === "won" && asked.ask.do === "swap" ? asked.ask.to : world.register;
    step(`${name} is heard: ${answer.is}`, {
      ...withHost(world, host, { ...process, asked: { ask: asked.ask, answer } }),
      register,
    });
    if (world.left.timeouts > 0) {
      const late = asked.ask.do === "read" || world.late.some((each) => isSame(each, asked.ask))
        ? world.late
        : [...world.late, asked.ask];
      const answer: Answer = { is: "unknown", why: "" };
      step(
        `${name}'s request is late`,
        {
          ...withHost(spend(world, "timeouts"), host, {
            ...process,
            asked: { ask: asked.ask, answer },
          }),
          late,
        },
        true,
      );
    }
    return;
  }
  step(`${name} is answered: ${asked.answer.is}`, takeAnswer(world, rules, host, process, asked));
}

/** Whether two requests are the same. */
export function isSame(a: Ask, b: Ask): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

/** What the store does and says. */
function answerOf(world: World, ask: Ask, rules: Rules): Answer {
  const { register } = world;
  if (ask.do === "read") return { is: "current", register };
  if (rules.isEqual(register, ask.from) || isEqual(register, ask.to)) return { is: "won" };
  return { is: "current", register };
}

function takeAnswer(
  world: World,
  rules: Rules,
  host: number,
  process: Primary | Secondary,
  asked: Asked,
): World {
  const me = sideOf(world, host);
  if (process.is === "secondary") {
    const claim = rules.answeredSecondary(process.claim, asked.ask, asked.answer!, me);
    return withHost(world, host, { ...process, claim, asked: undefined });
  }
  const claim = rules.answered(process.claim, asked.ask, asked.answer!, me);
  let next = withHost(world, host, { ...process, claim, asked: undefined });
  if (claim.at === "protected" && process.claim.at === "joining" && !rules.armsEarly) {
    next = arm(next, host, claim.register);
  }
  const hasGiven = claim.at === "ended" && claim.why === "given" && process.claim.at === "giving";
  if (hasGiven) next = toSecondary(next, host, { of: "named", register: claim.register });
  if (claim.at === "ended") {
    // The VM is let go; what this side was told by its last session stays on its way.
    next = {
      ...withHost(next, host, { is: "off" }),
      links: next.links.map((link) =>
        link.from === host && link.fromHasIt ? { ...link, isCut: true, fromHasIt: false } : link
      ).filter(isAlive),
    };
  }
  return next;
}
