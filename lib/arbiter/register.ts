/**
 * The arbiter's register: the one value, in a store that both hosts reach, that says which side may
 * run a VM. Each change is a compare-and-swap from the value that was read, and raises the
 * generation by one, so that an old request can never change a later value.
 *
 * ```text
 *              join: the primary, with a whole replica give: the primary, its VM stopped alone(P)
 *  ──────────────────────────────► protected(P, S) ──────────────────────────────► alone(S) ▲ │ │ ▲
 *  └────────── claim: the primary ──────────┘ └────────── claim: the secondary ────────┘
 * ```
 */
import { WireError } from "../errors.ts";

/** A host that takes part. */
export interface Side {
  /** The operator's name for it: the host's name, unless another was given. */
  readonly name: string;
  /** Identifies a kemari process: 16 hexadecimal digits, or {@link ANY_INSTANCE}. */
  readonly instance: string;
}

/** The instance of a side that an operator has named: any process that runs there. */
export const ANY_INSTANCE = "0".repeat(16);

interface Common {
  /** The VM of the register: its UUID or name; another VM's register is never changed. */
  readonly vm: string;
  /** 1 for the first value; each change adds 1. Below 2^53. */
  readonly generation: number;
}

/** One side has the VM, and may release all output. */
export interface Alone extends Common {
  readonly state: "alone";
  readonly side: Side;
}

/** The secondary has the state behind all released output, and may claim the VM. */
export interface Protected extends Common {
  readonly state: "protected";
  readonly primary: Side;
  readonly secondary: Side;
}

export type Register = Alone | Protected;

/** The longest register, in bytes of its text. */
export const MAX_REGISTER_BYTES = 1024;
const FORMAT = 1;
const SIDE = /^([A-Za-z0-9][A-Za-z0-9._-]{0,62})#([0-9a-f]{16})$/;
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;
const VM = /^[!-~]{1,200}$/;

/** Whether a text can be a side's name: like a host's name, at most 63 characters. */
export function isSideName(text: string): boolean {
  return NAME.test(text);
}

/** Whether a text can name a VM: 1 to 200 printable ASCII characters without spaces. */
export function isVmName(text: string): boolean {
  return VM.test(text);
}

/** `name#instance`. */
export function formatSide(side: Side): string {
  return `${side.name}#${side.instance}`;
}

/** Whether two sides are the same process, or one of them is a host that an operator has named. */
export function isSameSide(a: Side, b: Side): boolean {
  return a.name === b.name &&
    (a.instance === b.instance || a.instance === ANY_INSTANCE || b.instance === ANY_INSTANCE);
}

/**
 * Encodes a register: one line of JSON with its keys in a fixed order, so that equal registers are
 * equal texts, since stores compare texts.
 */
export function encodeRegister(register: Register): string {
  const { vm, generation, state } = register;
  const sides = register.state === "alone" ? { side: formatSide(register.side) } : {
    primary: formatSide(register.primary),
    secondary: formatSide(register.secondary),
  };
  return JSON.stringify({ kemari: FORMAT, vm, generation, state, ...sides });
}

/**
 * Decodes a register. A text that this version would not have written is refused, even for the
 * order of its keys: no process changes a register that it does not fully understand.
 *
 * @throws {WireError} `too-large`, `bad-value`, or `bad-version` for a later format.
 */
export function decodeRegister(text: string): Register {
  if (new TextEncoder().encode(text).length > MAX_REGISTER_BYTES) {
    return refuse("too-large", `a register of more than ${MAX_REGISTER_BYTES} bytes`);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return refuse("bad-value", "what is in the register is not kemari's: it is no JSON");
  }
  if (typeof value !== "object" || value === null || !Object.hasOwn(value, "kemari")) {
    return refuse("bad-value", "what is in the register is not kemari's");
  }
  const fields = value as Record<string, unknown>;
  const format = fields.kemari;
  if (typeof format === "number" && Number.isSafeInteger(format) && format > FORMAT) {
    throw new WireError(
      "arbiter",
      0,
      "bad-version",
      `the register has format ${format}, this kemari knows format ${FORMAT}`,
      { hint: "run the same kemari on both hosts" },
    );
  }
  const { vm, generation, state } = fields;
  if (typeof vm !== "string" || !VM.test(vm)) return refuse("bad-value", "no VM in the register");
  if (
    typeof generation !== "number" || !Number.isSafeInteger(generation) || generation < 1 ||
    generation >= Number.MAX_SAFE_INTEGER
  ) return refuse("bad-value", "no generation in the register");
  const register = registerOf(vm, generation, state, fields);
  if (register === undefined || encodeRegister(register) !== text) {
    return refuse("bad-value", "the register was not written by kemari");
  }
  return register;
}

function registerOf(
  vm: string,
  generation: number,
  state: unknown,
  fields: Record<string, unknown>,
): Register | undefined {
  if (state === "alone") {
    const side = sideOf(fields.side);
    return side && { state, vm, generation, side };
  }
  if (state !== "protected") return;
  const primary = sideOf(fields.primary);
  const secondary = sideOf(fields.secondary);
  if (primary === undefined || secondary === undefined || primary.name === secondary.name) return;
  return { state, vm, generation, primary, secondary };
}

function sideOf(text: unknown): Side | undefined {
  const match = typeof text === "string" ? SIDE.exec(text) : null;
  return match ? { name: match[1], instance: match[2] } : undefined;
}

function refuse(fault: "too-large" | "bad-value", message: string): never {
  throw new WireError("arbiter", 0, fault, message, {
    hint: "look at it with `kemari arbiter show`; is another program's key there?",
  });
}

/** The register's next value once `side` has the VM alone. */
export function aloneAfter(from: Register, side: Side): Alone {
  return { state: "alone", vm: from.vm, generation: from.generation + 1, side };
}

/** The register's next value once `secondary` has a whole replica. */
export function protectedAfter(from: Alone, secondary: Side): Protected {
  const { vm, generation, side } = from;
  return { state: "protected", vm, generation: generation + 1, primary: side, secondary };
}

/** Whether two registers are the same value. */
export function isEqual(a: Register | undefined, b: Register | undefined): boolean {
  if (a === undefined || b === undefined || a === b) return a === b;
  if (a.generation !== b.generation || a.vm !== b.vm) return false;
  if (a.state === "alone") return b.state === "alone" && isOne(a.side, b.side);
  return b.state === "protected" && isOne(a.primary, b.primary) &&
    isOne(a.secondary, b.secondary);
}

function isOne(a: Side, b: Side): boolean {
  return a.name === b.name && a.instance === b.instance;
}

/** A register in a sentence. */
export function describeRegister(register: Register): string {
  return register.state === "alone"
    ? `generation ${register.generation}: ${register.side.name} has the VM`
    : `generation ${register.generation}: ${register.primary.name} runs the VM, ` +
      `${register.secondary.name} protects it`;
}
