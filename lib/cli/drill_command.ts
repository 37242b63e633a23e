/** `kemari drill`, as it may be written. */
import { type Command, Option } from "@commander-js/extra-typings";
import { helpAfter } from "./help_text.ts";
import { type DrillOptions, parseCount, parseDurationMs } from "./options.ts";
import { commit, json, logFormat, named, progress, quiet } from "./shared_options.ts";

export function addDrillCommand(
  program: Command,
  run: (options: DrillOptions) => Promise<void>,
): void {
  const count = <const Flags extends string>(flags: Flags, what: string, standard: number) =>
    [flags, what, named(flags.split(" ")[0], parseCount), standard] as const;

  program.command("drill")
    .description("rehearse a failover on real VMs of its own, and check that nothing was lost")
    .option("--fault <names>", "what goes wrong: names with commas, or all", "primary")
    .option(
      "--ping-pong <n>",
      "instead: so many takeovers back and forth, under one client connection",
      named("--ping-pong", parseCount),
    )
    .option("--devices <models>", "the VM's NIC and disk: models with commas, or all", "virtio")
    .option(
      "--phase <names>",
      "the moment of the primary's death: names with commas, or all",
      "all",
    )
    .addOption(
      new Option("--disk-mode <mode>", "a disk for each host, or one that both can open")
        .choices(["replicated", "shared"] as const).default("replicated" as const),
    )
    .addOption(commit)
    .addOption(
      new Option("--standby <kind>", "a secondary QEMU that has the RAM already, or is given it")
        .choices(["warm", "cold"] as const).default("cold" as const),
    )
    .option(...count("--runs <n>", "how often each fault with each device model", 1))
    .option(...count("--seconds <s>", "how long to synchronize before the fault", 5))
    .addOption(
      new Option("--boot <when>", "boot the guest for each run, or once and go on from there")
        .choices(["each", "once"] as const).default("once" as const),
    )
    .option(...count("--jobs <n>", "how many runs at a time", 1))
    .option("--seed <n>", "choose the same moments again", named("--seed", parseCount))
    .addOption(
      new Option("--grace <duration>", "silence after which a host counts as lost")
        .argParser(named("--grace", parseDurationMs)).default(1500, "1500ms"),
    )
    .option(...count("--memory <MiB>", "the guest's RAM", 256))
    .addOption(
      new Option("--form <form>", "with a client outside of the guest (needs root), or without")
        .choices(["auto", "client", "memory"] as const).default("auto" as const),
    )
    .option("--keep", "leave the working folder behind", false)
    .addOption(json)
    .addOption(logFormat).addOption(quiet).addOption(progress)
    .addHelpText("after", helpAfter("drill"))
    .action(({ memory, grace, ...rest }) => run({ ...rest, memoryMiB: memory, graceMs: grace }));
}
