import assert from "node:assert/strict";
import { FIO_JOBS, fioCommand, parseFio } from "./fio.ts";

/** As fio 3.33 writes it: version, fio, job, group, error; reads from field 5, writes from 46. */
function terse(readKib: number, writeKib: number): string {
  const fields = new Array<string>(130).fill("0");
  fields.splice(0, 5, "3", "fio-3.33", "job", "0", "0");
  fields[6] = String(readKib);
  fields[47] = String(writeKib);
  return fields.join(";");
}

Deno.test("fio's terse line becomes MB/s, whichever way the job goes", () => {
  assert.equal(parseFio(["fio: a warning", terse(0, 2000), ""].join("\n")), 2.048);
  assert.equal(parseFio(terse(125, 0)), 0.128);
});

Deno.test("output without a whole line is no result", () => {
  assert.equal(parseFio("fio: /dev/vdz: No such file"), undefined);
  assert.equal(parseFio(terse(1, 2).slice(0, 60)), undefined);
});

Deno.test("a job's command line has its options, the device and the time", () => {
  const command = fioCommand(FIO_JOBS[1], "/dev/vda", 3);
  assert.match(command, /--filename=\/dev\/vda .*--runtime=3 .*--iodepth=1 --fsync=1$/);
});
