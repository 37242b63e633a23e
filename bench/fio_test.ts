import assert from "node:assert/strict";
import { FIO_JOBS, fioCommand, parseFio } from "./fio.ts";

/** As fio 3.33 writes it: version, fio, job, group, error; reads from field 5, writes from 46. */
function terse(job: number, readKib: number, writeKib: number): string {
  const fields = new Array<string>(130).fill("0");
  fields.splice(0, 5, "3", "fio-3.33", `job${job}`, String(job), "0");
  fields[6] = String(readKib);
  fields[47] = String(writeKib);
  return fields.join(";");
}

Deno.test("fio's terse lines become MB/s of each job", () => {
  const lines = FIO_JOBS.map((_, i) => i < 4 ? terse(i, 0, 1000 * (i + 1)) : terse(i, 125, 0));
  const speeds = parseFio(["fio: a warning", ...lines, ""].join("\n"))!;
  assert.deepEqual(speeds, [1.024, 2.048, 3.072, 4.096, 0.128, 0.128]);
});

Deno.test("output that lacks a job is no result", () => {
  assert.equal(parseFio("fio: /dev/vdz: No such file"), undefined);
  assert.equal(parseFio(terse(0, 1, 2)), undefined);
});

Deno.test("every job of the command line waits for the one before", () => {
  const command = fioCommand("/dev/vda", 3);
  assert.equal(command.match(/--stonewall/g)?.length, FIO_JOBS.length);
  assert.match(command, /--filename=\/dev\/vda .*--runtime=3 /);
});
