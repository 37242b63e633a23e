import { UsageError } from "../../errors.ts";
import type { Note } from "../help_tail.ts";
import { optionGroup, parsed } from "./option_group.ts";
import { parseDurationMs } from "../../units.ts";

/** How both ends tell a dead peer from a quiet one. */
interface LinkTiming {
  /** Time between two heartbeats, in milliseconds. */
  readonly heartbeatMs: number;
  /** Silence after which the peer counts as lost, in milliseconds. */
  readonly graceMs: number;
}

/**
 * The link, and the control socket.
 *
 * With a heartbeat every 100 ms, the longest silence between two idle ends on two busy cores was
 * 516 ms in 62 minutes, and 911 ms in 36 others, under a load of up to 15 (measured). The grace
 * time is more than three times that.
 */
export const connection = optionGroup(
  "Connection",
  (command) =>
    command
      .addOption(
        parsed("--heartbeat <duration>", "time between two heartbeats", parseDurationMs)
          .default(100, "100ms"),
      )
      .addOption(
        parsed("--grace <duration>", "silence after which the peer counts as lost", parseDurationMs)
          .default(3000, "3s"),
      )
      .option(
        "--control <path>",
        "Unix socket for kemari status and failover: PATH or unix:PATH",
      ),
  ({ heartbeat, grace, ...rest }) => {
    const timing = { heartbeatMs: heartbeat, graceMs: grace };
    checkTiming(timing);
    return { ...rest, ...timing };
  },
);

/**
 * Refuses timings by which a live peer would be declared dead.
 *
 * @throws {UsageError} The grace time is not longer than the time between two heartbeats.
 */
export function checkTiming({ heartbeatMs, graceMs }: LinkTiming): void {
  if (graceMs > heartbeatMs) return;
  throw new UsageError(
    `--grace (${graceMs} ms) must be longer than --heartbeat (${heartbeatMs} ms)`,
    { hint: "Let several heartbeats fit into the grace time: a late one is not a dead peer" },
  );
}

const TCP = "TCP. IPv6 stands in brackets: [2001:db8::1]:PORT, link-local [fe80::1%eth0]:PORT";

const UNITS =
  `Durations are milliseconds unless they say ms, s, m or h. Sizes take the binary units K,
    M, G and T.`;

/** The forms of TARGET: where `send` and `protect` find their secondary. */
export const TARGETS: Note = {
  title: "Addresses",
  parts: [
    {
      "HOST:PORT": TCP,
      "tcp:HOST:PORT": "the same",
      "ssh:HOST[:PATH]":
        "the kemari recv on HOST whose control socket is PATH (default: /run/kemari.ctl)",
      "unix:PATH": "a Unix socket",
      "exec:CMD": `stdin and stdout of a shell command, such as "ssh host kemari recv stdio: …"`,
    },
    UNITS,
  ],
};

/** The forms of LISTEN: where `recv` waits for its primary. */
export const LISTENERS: Note = {
  title: "Addresses",
  parts: [
    {
      "HOST:PORT": TCP,
      "tcp:HOST:PORT": "the same",
      "unix:PATH": "a Unix socket, which is made",
      "exec:CMD": "stdin and stdout of a shell command",
      "stdio:": "kemari's own stdin and stdout; only with --exec or --standby",
    },
    UNITS,
  ],
};
