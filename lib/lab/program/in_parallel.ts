/**
 * Carries out tasks in order, so many at a time. After one that rejects none is begun, and those
 * that are under way come to their ends.
 *
 * @param onError Hears of each rejection at once.
 * @throws the first rejection.
 */
export async function inParallel<Task>(
  jobs: number,
  tasks: Iterable<Task>,
  perform: (task: Task) => Promise<void>,
  onError: (error: unknown, task: Task) => void,
): Promise<void> {
  const queue = tasks[Symbol.iterator]();
  let failure: { readonly error: unknown } | undefined;
  const work = async (): Promise<void> => {
    while (failure === undefined) {
      const { value, done } = queue.next();
      if (done) return;
      try {
        await perform(value);
      } catch (error) {
        onError(error, value);
        failure ??= { error };
      }
    }
  };
  await Promise.all(Array.from({ length: jobs }, work));
  // The compiler does not see that work() sets it.
  const first = failure as { readonly error: unknown } | undefined;
  if (first !== undefined) throw first.error;
}
