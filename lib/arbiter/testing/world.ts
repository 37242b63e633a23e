/**
 * A small world for the model checker: three hosts, a register, requests to it that may be late, links
 * that may be cut, processes that may die; and every step that can be made in it.
 *
 * Nothing has a clock: a process that stands still (SIGSTOP, a host that swaps, a clock that jumps) is
 * one whose steps are not made for a while, which the search tries at each place.
 *
 * A VM's life is a *line*: it begins at a boot or a takeover. Its output is numbered by epochs, as are
 * the states that travel to the secondary.
 */
import type { Answer, Ask } from "../claim.ts";
import { isEqual, type Register, type Side } from "../register.ts";
import * as primary from "../primary_claim.ts";
import * as secondary from "../secondary_claim.ts";

/** The rules that are searched; a mutant replaces some. */
export interface Rules {
  readonly startPrimary: typeof primary.startPrimary;
  readonly told: typeof primary.told;
  readonly answered: typeof primary.answered;
  readonly askOf: typeof primary.askOf;
  readonly speaks: typeof primary.speaks;
  readonly runs: typeof primary.runs;
  readonly toldSecondary: typeof secondary.toldSecondary;
  readonly answeredSecondary: typeof secondary.answeredSecondary;
  readonly askOfSecondary: typeof secondary.askOfSecondary;
  readonly mayAcknowledge: typeof secondary.mayAcknowledge;
  /** What the store compares. */
  readonly isEqual: typeof isEqual;
  /** Whether a secondary is armed when its joining is asked for, and not only when it is won. */
  readonly armsEarly: boolean;
  /** Whether a handover waits for the last acknowledgement. */
  readonly givesWhole: boolean;
  /** Whether a state that only leads to harm counts as broken, too. */
  readonly isStrict: boolean;
}

export const RULES: Rules = {
  ...primary,
  ...secondary,
  isEqual,
  armsEarly: false,
  givesWhole: true,
  isStrict: true,
};

/** What a host runs: nothing, the VM, or a replica of it. */
export type Process =
  | { readonly is: "off" }
  | {
    readonly is: "primary";
    readonly claim: primary.PrimaryClaim;
    readonly line: number;
    /** The VM's epoch, and the last one that the secondary of this session has acknowledged. */
    readonly epoch: number;
    readonly sent: number;
    readonly acked: number;
    readonly asked: Asked | undefined;
  }
  | {
    readonly is: "secondary";
    readonly claim: secondary.SecondaryClaim;
    /** The replica: of which line, and its epoch; line 0 for none. */
    readonly line: number;
    readonly epoch: number;
    /** What would be started: the replica as it was when it was claimed, or given. */
    readonly ready?: number;
    readonly asked: Asked | undefined;
  };

/** A request without its answer, or with one that has not come in yet. */
export interface Asked {
  readonly ask: Ask;
  readonly answer?: Answer;
}

/** What goes to the secondary. */
export type Down =
  | { readonly of: "transaction"; readonly line: number; readonly epoch: number }
  | { readonly of: "arm"; readonly register: Register }
  | { readonly of: "handover"; readonly epoch: number }
  | { readonly of: "named"; readonly register: Register };

/** A connection. What was sent before a cut may still come in, or not. */
export interface Link {
  readonly from: number;
  readonly to: number;
  readonly down: readonly Down[];
  readonly up: readonly number[];
  readonly isCut: boolean;
  readonly fromHasIt: boolean;
  readonly toHasIt: boolean;
}

export interface World {
  readonly register: Register | undefined;
  readonly hosts: readonly Process[];
  readonly instances: readonly number[];
  readonly links: readonly Link[];
  /** Requests that were given up by who asked, and may still be done. */
  readonly late: readonly Ask[];
  /** By line: the last epoch that was let out; and where another line took it over, from which one. */
  readonly emitted: readonly number[];
  readonly takenOver: readonly (number | undefined)[];
  /** What is left of each kind of trouble. */
  readonly left: Budget;
}

export interface Budget {
  readonly cuts: number;
  readonly crashes: number;
  readonly boots: number;
  readonly timeouts: number;
  readonly handovers: number;
  readonly epochs: number;
  readonly sessions: number;
}

/** A promise is broken. */
export class Broken extends Error {
  /** The step that broke it. */
  step = "";
}

export const NAMES = ["a", "b", "c"];
export const VM = "vm";
/** The process of a host: in a small world a number stands for it. */
export function sideOf(world: { readonly instances: readonly number[] }, host: number): Side {
  return {
    name: NAMES[host],
    instance: world.instances[host].toString(16).padStart(16, "0"),
  };
}

/**
 * A protects itself with C; B is idle. C, cut off, may come back any time with a replica that has
 * become old.
 */
export function firstWorld(left: Budget): World {
  const instances = [1, 1, 1];
  const register: Register = {
    state: "protected",
    vm: VM,
    generation: 1,
    primary: sideOf({ instances }, 0),
    secondary: sideOf({ instances }, 2),
  };
  return {
    register,
    instances,
    hosts: [
      {
        is: "primary",
        claim: { at: "protected", register },
        line: 1,
        epoch: 1,
        sent: 1,
        acked: 1,
        asked: undefined,
      },
      { is: "secondary", claim: { at: "unarmed" }, line: 0, epoch: 0, asked: undefined },
      { is: "secondary", claim: { at: "armed", register }, line: 1, epoch: 1, asked: undefined },
    ],
    links: [{ from: 0, to: 2, down: [], up: [], isCut: false, fromHasIt: true, toHasIt: true }],
    late: [],
    emitted: [0, 1],
    takenOver: [undefined, undefined],
    left,
  };
}

/** Whether somebody has an end of a link. */
export function isAlive(link: Link): boolean {
  return link.fromHasIt || link.toHasIt;
}

/** Enters a step. */
export type Add = (name: string, next: World, isFault?: boolean) => void;
export type Primary = Extract<Process, { is: "primary" }>;
export type Secondary = Extract<Process, { is: "secondary" }>;

/** A world in one text: equal worlds have equal texts. */
export function keyOf(world: World): string {
  const { left } = world;
  return [
    shortOf(world.register),
    ...world.hosts.map(shortProcess),
    world.instances.join(),
    world.links.map(shortLink).join("|"),
    world.late.map(shortAsk).sort().join("|"),
    world.emitted.join(),
    world.takenOver.join(),
    `${left.cuts}${left.crashes}${left.boots}${left.timeouts}${left.handovers}${left.sessions}`,
  ].join(";");
}

function shortSide(side: Side): string {
  return side.name + Number.parseInt(side.instance, 16);
}

function shortOf(register: Register | undefined): string {
  if (register === undefined) return "-";
  const { generation } = register;
  return register.state === "alone"
    ? generation + shortSide(register.side)
    : generation + shortSide(register.primary) + shortSide(register.secondary);
}

function shortAsk(ask: Ask): string {
  return ask.do === "read" ? "?" : `${shortOf(ask.from)}>${shortOf(ask.to)}`;
}

function shortAsked(asked: Asked | undefined): string {
  if (asked === undefined) return "";
  const { ask, answer } = asked;
  if (answer === undefined) return shortAsk(ask);
  return `${shortAsk(ask)}=${answer.is}${answer.is === "current" ? shortOf(answer.register) : ""}`;
}

function shortProcess(process: Process): string {
  if (process.is === "off") return "";
  const { claim } = process;
  const held = "register" in claim ? shortOf(claim.register) : "";
  const swap = "from" in claim ? `${shortOf(claim.from)}>${shortOf(claim.to)}` : "";
  const start = claim.at === "claiming" && claim.isStart ? "s" : "";
  const doubt = "doubt" in claim ? "d" : "";
  const rest = process.is === "primary" ? `${process.sent},${process.acked}` : process.ready ?? "";
  return `${process.is[0]}${claim.at}${held}${swap}${start}${doubt},${process.line},` +
    `${process.epoch},${rest},${shortAsked(process.asked)}`;
}

function shortLink(link: Link): string {
  const down = link.down.map((each) => {
    switch (each.of) {
      case "transaction":
        return `t${each.line}.${each.epoch}`;
      case "handover":
        return `h${each.epoch}`;
      default:
        return each.of[0] + shortOf(each.register);
    }
  });
  const ends = Number(link.isCut) + 2 * Number(link.fromHasIt) + 4 * Number(link.toHasIt);
  return `${link.from}${link.to}${ends}${down.join()}/${link.up.join()}`;
}
