/** A signal that never comes: for what nobody may interrupt. */
export const never: AbortSignal = new AbortController().signal;
