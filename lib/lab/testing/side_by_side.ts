/** For tests: scenes that mostly wait, for a grace time to pass, a process to start or to try again. */
import { inParallel } from "../program/in_parallel.ts";
import { hasKvm } from "../vms/kvm.ts";

/** Adds a scene, which shares nothing with the others. */
export type AddScene = (
  name: string,
  play: () => void | Promise<void>,
  /** `needsKvm`: skipped where there is no KVM, as by `kvmTest`. */
  options?: { readonly needsKvm?: boolean },
) => void;

/**
 * How many at a time. With four of them two cores were not enough for all their VMs: one scene in a
 * few hundred waited a minute in vain.
 */
const AT_ONCE = 1;

/**
 * A test whose steps wait at the same time.
 *
 * What a step leaves behind shows at the end of all of them.
 */
export function sideBySide(name: string, describe: (scene: AddScene) => void): void {
  const scenes: Deno.TestStepDefinition[] = [];
  describe((name, play, { needsKvm = false } = {}) => {
    const ignore = needsKvm && !hasKvm();
    scenes.push({
      name: ignore ? `${name} (SKIP: /dev/kvm cannot be opened)` : name,
      ignore,
      fn: play,
      sanitizeOps: false,
      sanitizeResources: false,
      sanitizeExit: false,
    });
  });
  Deno.test(name, async (test) => {
    await inParallel(AT_ONCE, scenes, async (scene) => void await test.step(scene), () => {});
  });
}
