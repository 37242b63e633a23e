/** Called once when a disk's call is over, at once or later; with the error if it has failed. */
export type Done = (error?: Error) => void;

/** For calls whose end nobody waits for: throws a failure from wherever it is noticed. */
export const raise: Done = (error) => {
  if (error !== undefined) throw error;
};
