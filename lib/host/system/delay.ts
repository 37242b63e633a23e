/** Waits in the runtime, which the reactor may sleep without: for tasks beside its loop. */
export function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
