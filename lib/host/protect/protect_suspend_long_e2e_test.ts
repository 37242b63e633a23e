/** As `protect_suspend_e2e_test.ts`, in the other ways of protecting and on other machines. */
import { sideBySide } from "../../lab/testing/side_by_side.ts";
import { KVM, sleepsAndIsProtectedAgain, TCG } from "./testing/sleeping_guest.ts";

sideBySide("e2e: guests that suspend themselves, in all ways", (scene) => {
  scene(
    "a guest that suspends itself sleeps, and is protected again when it wakes: 7.2, tcg, snapshot",
    () => sleepsAndIsProtectedAgain("7.2", TCG, "snapshot"),
  );

  for (
    const [version, mode, machine] of [
      ["11.1", "colo", "pc"],
      ["11.1", "snapshot", "q35"],
      ["10.0", "colo", "q35"],
    ] as const
  ) {
    scene(
      `a guest that suspends itself sleeps, and is protected again when it wakes: ${version}, kvm, ${mode}, ${machine}`,
      () => sleepsAndIsProtectedAgain(version, { ...KVM, machine }, mode),
      { needsKvm: true },
    );
  }
});
