import { getLogger } from "@logtape/logtape";

const log = getLogger(["kemari", "host"]);

/**
 * For {@link Reactor.runOn}: tells of what fails beside something that has to come to its end. What
 * fails again and again in the same way is told once.
 *
 * @param doing What goes on meanwhile, as in "while …".
 */
export function besides(doing: string): (failure: unknown) => void {
  const told = new Set<string>();
  return (failure) => {
    const reason = failure instanceof Error ? failure.message : `${failure}`;
    if (told.has(reason)) return;
    told.add(reason);
    log.warn("{reason} (while {doing}, which goes on)", { reason, doing });
  };
}
