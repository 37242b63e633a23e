/** For tests on real QEMU: settings that an operator has made, and that have to come back. */
import assert from "node:assert/strict";
import { QmpClient } from "../../host/vm/qmp_client.ts";
import { BarePair } from "./bare_pair.ts";
import { until } from "../program/until.ts";

/** What an operator has set, all of which a protection needs otherwise. */
const CAPABILITIES = { "events": false, "multifd": true, "x-colo": false, "return-path": true };
const PARAMETERS = { "max-bandwidth": 123_456_789, "x-checkpoint-delay": 4321 };

export interface OperatorSettings {
  readonly capabilities: Readonly<Record<string, boolean>>;
  readonly parameters: Readonly<Record<string, number>>;
  readonly suppressVmdesc: unknown;
}

export async function settingsOf(qmp: QmpClient): Promise<OperatorSettings> {
  const list = await qmp.execute("query-migrate-capabilities") as {
    capability: string;
    state: boolean;
  }[];
  const parameters = await qmp.execute("query-migrate-parameters") as Record<string, number>;
  const property = { path: "/machine", property: "suppress-vmdesc" };
  return {
    capabilities: Object.fromEntries(
      Object.keys(CAPABILITIES).map((name) => {
        return [name, list.find(({ capability }) => capability === name)!.state];
      }),
    ),
    parameters: Object.fromEntries(
      Object.keys(PARAMETERS).map((name) => [name, parameters[name]]),
    ),
    suppressVmdesc: await qmp.execute("qom-get", property),
  };
}

export const AS_SET: OperatorSettings = {
  capabilities: CAPABILITIES,
  parameters: PARAMETERS,
  suppressVmdesc: false,
};

/** A VM with an operator's settings, a secondary that waits, and a second monitor. */
export async function prepared() {
  const pair = await BarePair.boot("11.1", { accelerator: "tcg", timer: "apic" });
  const qmp = pair.own(await QmpClient.connect(pair.primary.spareQmpPath));
  await qmp.execute("migrate-set-capabilities", {
    capabilities: Object.entries(CAPABILITIES).map(([capability, state]) => ({
      capability,
      state,
    })),
  });
  await qmp.execute("migrate-set-parameters", PARAMETERS);
  assert.deepEqual(await settingsOf(qmp), AS_SET);
  const recv = await pair.recv();
  await pair.secondary();
  return { pair, qmp, recv };
}

export async function assertPutBack(qmp: QmpClient): Promise<void> {
  let found: OperatorSettings | undefined;
  const isBack = async () => {
    found = await settingsOf(qmp);
    return JSON.stringify(found) === JSON.stringify(AS_SET);
  };
  await until(isBack, "the settings to be put back").catch(() => assert.deepEqual(found, AS_SET));
}
