/** Every frame in every state of both ends, and every bound of its header, by the table of rules. */
import assert from "node:assert/strict";
import { WireError } from "../errors.ts";
import { FRAME_RULES, type FrameName, RECEIVER_STATES, SENDER_STATES } from "./frame_rules.ts";
import type { FrameHeader } from "./frame_header.ts";
import { featureWord } from "./hello.ts";
import { isOver, judge, type Standing, type Verdict } from "./testing/frame_oracle.ts";
import {
  ALL_FEATURES,
  receiverIn,
  rightFrame,
  senderIn,
  type StoodEnd,
} from "./testing/standing_ends.ts";
import { TXN } from "./wire.ts";

const NAMES = Object.keys(TXN) as FrameName[];

/** Makes an end that stands somewhere. */
type Make = () => StoodEnd;

/** Bits, and some of them together. */
const FLAGS = [0, 1, 2, 3, 4, 5, 8, 16, 32, 64, 128, 255];

const RECEIVERS: readonly Make[] = RECEIVER_STATES.map((state) => () => receiverIn(state));
const SENDERS: readonly Make[] = SENDER_STATES.map((state) => () => senderIn(state));
const ENDS = [...RECEIVERS, ...SENDERS];

let cases = 0;

/** Gives a frame to an end, and compares what becomes of it with the verdict. */
function expect(make: Make, header: FrameHeader, verdict: Verdict, payload?: Uint8Array): void {
  cases++;
  const end = make();
  const before = end.seen;
  const { standing } = end;
  const words = `${nameOf(header.command)} ${JSON.stringify({ ...header, standing })}`;
  let error: unknown;
  try {
    end.give(header, payload);
  } catch (thrown) {
    error = thrown;
  }
  switch (verdict.is) {
    case "refused":
      assert.ok(error instanceof WireError, `taken: ${words}`);
      assert.equal(error.fault, verdict.fault, `${error.message}: ${words}`);
      break;
    case "passed over":
      assert.equal(error, undefined, words);
      assert.deepEqual(end.seen, before, words);
      break;
    case "taken":
      // A header alone is kept until there is a payload.
      if (header.command === TXN.NACK && payload !== undefined) {
        assert.ok(error instanceof WireError && error.fault === "refused", words);
      } else if (error !== undefined) {
        throw new Error(`refused: ${words}`, { cause: error });
      }
  }
}

const nameOf = (command: number) => NAMES.find((name) => TXN[name] === command) ?? `${command}`;

/** A header alone: its bounds are looked at before its payload is there. */
function expectHeader(
  make: Make,
  change: (header: FrameHeader, at: Standing) => FrameHeader,
): void {
  const { standing } = make();
  for (const name of NAMES) {
    const header = change(rightFrame(name, standing).header, standing);
    expect(make, header, judge(standing, header));
  }
}

for (const make of ENDS) {
  const { standing: { end, state } } = make();

  Deno.test(`a ${end} in ${state}: each frame is taken or refused as the table says`, () => {
    let taken = 0;
    for (const name of NAMES) {
      const { standing } = make();
      const { header, payload } = rightFrame(name, standing);
      const verdict = judge(standing, header);
      const where: readonly string[] = FRAME_RULES[name].takenIn[end] ?? [];
      if (verdict.is !== "passed over") {
        assert.equal(verdict.is, where.includes(state) ? "taken" : "refused", name);
      }
      if (verdict.is === "taken") taken++;
      expect(make, header, verdict, payload);
    }
    assert.equal(taken > 0, !isOver(make().standing));
  });

  Deno.test(`a ${end} in ${state}: what is no command is refused`, () => {
    for (let command = 0; command < 256; command++) {
      if (NAMES.some((name) => TXN[name] === command)) continue;
      const header = { command, flags: 0, sequence: 0, transaction: 0, lengthBytes: 0 };
      expect(make, header, judge(make().standing, header));
    }
  });

  Deno.test(`a ${end} in ${state}: lengths at their bounds, and one beyond`, () => {
    for (const which of [0, 1] as const) {
      for (const more of [-1, 0, 1]) {
        expectHeader(make, (header) => {
          const bound = FRAME_RULES[nameOf(header.command) as FrameName].bytes[which];
          return { ...header, lengthBytes: Math.max(0, bound + more) };
        });
      }
    }
    expectHeader(make, (header) => ({ ...header, lengthBytes: 0xffff_ffff }));
  });

  Deno.test(`a ${end} in ${state}: each bit of the flags, and some together`, () => {
    for (const flags of FLAGS) {
      expectHeader(make, (header) => ({ ...header, flags }));
    }
  });

  Deno.test(`a ${end} in ${state}: sequences that are right, next to it, and far off`, () => {
    for (const sequence of [0, 1, 2, 3, 4, 0xffff_ffff]) {
      expectHeader(make, (header) => ({ ...header, sequence }));
    }
  });

  Deno.test(`a ${end} in ${state}: transactions that are right, next to it, and far off`, () => {
    for (const field of ["transaction", "acknowledged"] as const) {
      for (const more of [-2, -1, 0, 1, 2]) {
        expectHeader(make, (header, at) => {
          return { ...header, transaction: Math.max(0, at[field] + more) };
        });
      }
    }
    for (const transaction of [0, 1, 2 ** 32, Number.MAX_SAFE_INTEGER, 2 ** 53, 2 ** 63]) {
      expectHeader(make, (header) => ({ ...header, transaction }));
    }
  });
}

/** The features without which some frame is not taken. */
const NEEDS = [
  ...new Set(NAMES.flatMap((name) => {
    const { needs, payloadNeeds } = FRAME_RULES[name];
    return [needs ?? payloadNeeds ?? []].flat();
  })),
];

for (const feature of NEEDS) {
  const word = featureWord(feature);
  const others = ALL_FEATURES.filter((name) => name !== feature);

  Deno.test(`${word}, not offered: what needs it is refused in every state, at both ends`, () => {
    const takes = feature !== "inputs";
    // States that nothing leads to without it.
    const unreached = { digests: ["telling", "asking"], farewell: ["done"] }[feature as string];
    const isReached = (state: string) => !unreached?.includes(state);
    const ends = [
      ...RECEIVER_STATES.filter(isReached).map((state) => () => receiverIn(state, others, takes)),
      ...SENDER_STATES.filter(isReached).map((state) => () => senderIn(state, others)),
    ];
    let refused = 0;
    for (const make of ends) {
      for (const name of NAMES) {
        const { standing } = make();
        const { header, payload } = rightFrame(name, standing);
        const verdict = judge(standing, header);
        const places: readonly string[] = FRAME_RULES[name].takenIn[standing.end] ?? [];
        if (verdict.is === "refused" && places.includes(standing.state)) refused++;
        expect(make, header, verdict, payload);
        if (FRAME_RULES[name].payloadNeeds !== feature) continue;
        const bare = { ...header, lengthBytes: 0 };
        expect(make, bare, judge(standing, bare));
      }
    }
    assert.ok(refused > 0, "something needs it");
  });
}

Deno.test("a sender takes no answer to what it has not asked", () => {
  for (const state of SENDER_STATES) {
    const make = () => senderIn(state, ALL_FEATURES, false);
    for (const name of NAMES) {
      const { standing } = make();
      const { header, payload } = rightFrame(name, standing);
      expect(make, header, judge(standing, header), payload);
    }
  }
});

Deno.test("the rules are of all frames, and of all states of both ends", () => {
  for (const name of NAMES) {
    const { sentIn, takenIn, bytes: [least, most] } = FRAME_RULES[name];
    assert.ok(least <= most, name);
    for (const [from, to] of [["sender", "receiver"], ["receiver", "sender"]] as const) {
      assert.equal(sentIn[from] === undefined, takenIn[to] === undefined, `${name} from ${from}`);
    }
  }
  assert.ok(cases > 5000, `${cases} cases`);
});
