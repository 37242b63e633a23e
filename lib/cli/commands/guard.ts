import { UsageError } from "../../errors.ts";
import { defineCommand } from "../command.ts";

/** Not for people: `kemari protect` starts it. */
export const guard = defineCommand({
  name: "guard",
  summary: "outlive kemari protect, and tell QEMU if it was killed; not for people",
  arguments: (command) =>
    command
      .argument("<qmp>", "QEMU's QMP socket")
      .argument("<action>", "continue or stop")
      .argument("<folder>", "temporary folder to remove"),
  groups: [],
  async run([qmp, action, folder]) {
    if (action !== "continue" && action !== "stop") {
      throw new UsageError(`no such action: ${action}`);
    }
    const { guard } = await import("../../host/protect/guardian.ts");
    await guard(qmp, action, folder);
  },
});
