/** A signal that never fires: for work that nothing may interrupt. */
export const never: AbortSignal = new AbortController().signal;
