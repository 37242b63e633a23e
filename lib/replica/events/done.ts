/**
 * Told once when a disk's call is over, at once or later: with what it failed with, or with nothing.
 */
export type Done = (error?: Error) => void;

/** For calls whose end nobody waits for: a failure is thrown from wherever it is noticed. */
export const raise: Done = (error) => {
  if (error !== undefined) throw error;
};
