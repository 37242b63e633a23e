/**
 * Waits for a task, but not for ever. The reactor does not turn meanwhile, unless somebody else has it
 * do so.
 *
 * @returns What the task comes to; undefined when the time has gone by: the task then goes on alone.
 * @throws what the task rejects with in that time.
 */
export async function within<T>(limitMs: number, task: Promise<T>): Promise<T | undefined> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), limitMs);
  });
  try {
    return await Promise.race([task, late]);
  } finally {
    clearTimeout(timer);
  }
}
