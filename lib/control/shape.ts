/**
 * Checks of another process's JSON before it is used.
 *
 * A {@link Shape} returns the very value that it was given, so that fields which it does not know,
 * a later version's, are still there. Fields that it knows are all required, unless they are {@link
 * optional}: fields that are added after a release are optional, since an end of an earlier release
 * may be asked.
 */
import { WireError } from "../errors.ts";

/**
 * @param path The value's place in the message, such as `pause.p50`; empty for the whole.
 * @throws {Mismatch} if the value is of another shape.
 */
export type Shape<T> = (value: unknown, path: string) => T;

/** A shape for each field; the compiler checks that none is missing or superfluous. */
export type Fields<T> = { readonly [K in keyof T]-?: Shape<T[K]> };

/** The most characters of a value that an error quotes. */
const MAX_QUOTED_CHARS = 40;

/** The first mismatch that was found; {@link checked} makes an error of it. */
export class Mismatch extends Error {}

/**
 * Checks a whole message.
 *
 * @param what The beginning of the error, such as `/run/ctl: the answer is no kemari status`.
 * @param hint What to do if the check fails.
 * @throws {WireError} `bad-value`, naming the first field that is missing or of another type.
 */
export function checked<T>(value: unknown, shape: Shape<T>, what: string, hint?: string): T {
  try {
    return shape(value, "");
  } catch (error) {
    if (!(error instanceof Mismatch)) throw error;
    throw new WireError("control", 0, "bad-value", `${what}: ${error.message}`, { hint });
  }
}

function mismatch(value: unknown, path: string, wanted: string): Mismatch {
  const name = path === "" ? "it" : path;
  if (value === undefined) return new Mismatch(`${name} is missing`);
  return new Mismatch(`${name} must be ${wanted}, and is ${describe(value)}`);
}

/** A value in words; lists and objects are not written out, since they may be long and deep. */
function describe(value: unknown): string {
  if (Array.isArray(value)) return "a list";
  if (isObject(value)) return "an object";
  const text = JSON.stringify(value);
  return text.length > MAX_QUOTED_CHARS ? text.slice(0, MAX_QUOTED_CHARS) + "…" : text;
}

export const anyText: Shape<string> = (value, path) => {
  if (typeof value === "string") return value;
  throw mismatch(value, path, "a text");
};

/** A finite number: JSON's numbers are finite, except those too large for a double. */
export const anyNumber: Shape<number> = (value, path) => {
  if (typeof value === "number" && Number.isFinite(value)) return value;
  throw mismatch(value, path, "a number");
};

export const anyBoolean: Shape<boolean> = (value, path) => {
  if (typeof value === "boolean") return value;
  throw mismatch(value, path, "true or false");
};

/** One of some constants. */
export function oneOf<const T extends string | number | boolean>(...choices: T[]): Shape<T> {
  return (value, path) => {
    const found = choices.find((choice) => choice === value);
    if (found !== undefined) return found;
    throw mismatch(value, path, choices.map((choice) => JSON.stringify(choice)).join(" or "));
  };
}

/** May be missing. */
export function optional<T>(shape: Shape<T>): Shape<T | undefined> {
  return (value, path) => value === undefined ? undefined : shape(value, path);
}

/** May be `null`, if there is no such thing now. */
export function nullable<T>(shape: Shape<T>): Shape<T | null> {
  return (value, path) => value === null ? null : shape(value, path);
}

export function listOf<T>(shape: Shape<T>): Shape<readonly T[]> {
  return (value, path) => {
    if (!Array.isArray(value)) throw mismatch(value, path, "a list");
    for (let i = 0; i < value.length; i++) shape(value[i], `${path}[${i}]`);
    return value;
  };
}

/** An object whose keys are names, of NICs for instance. */
export function mapOf<T>(shape: Shape<T>): Shape<Readonly<Record<string, T>>> {
  return (value, path) => {
    if (!isObject(value)) throw mismatch(value, path, "an object");
    for (const [name, each] of Object.entries(value)) shape(each, `${path}["${name}"]`);
    return value as Record<string, T>;
  };
}

/** An object with these fields, and whatever others. */
export function record<T>(fields: Fields<T>): Shape<T> {
  const shapes = Object.entries<Shape<unknown>>(fields);
  return (value, path) => {
    if (!isObject(value)) throw mismatch(value, path, "an object");
    for (const [name, shape] of shapes) {
      const found = Object.hasOwn(value, name) ? value[name] : undefined;
      shape(found, path === "" ? name : `${path}.${name}`);
    }
    return value as T;
  };
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
