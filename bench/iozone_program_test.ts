import assert from "node:assert/strict";
import { QemuError } from "../lib/errors.ts";
import { decodeIozone, iozoneCommand } from "./iozone_program.ts";

const READ = `	Command line used: /opt/iozone -I -e -w -s 4096k -r 4k -i 1 -f /mnt/iozone
	Time Resolution = 0.000001 seconds.
                                                              random    random     bkwd
              kB  reclen    write  rewrite    read    reread    read     write     read
            4096       4                     29012    30111                            

iozone test complete.
`;

Deno.test("iozone's rates are the two numbers behind the sizes", () => {
  assert.deepEqual(decodeIozone(READ), [29012 * 1024, 30111 * 1024]);
});

Deno.test("what iozone says of a failure is passed on", () => {
  const full = "Error writing block 3\nwrite: No space left on device\n";
  assert.throws(
    () => decodeIozone(full),
    (error) => error instanceof QemuError && /No space left/.test(error.message),
  );
  assert.throws(() => decodeIozone(READ.replace("iozone test complete.", "")), QemuError);
});

Deno.test("iozone is asked for direct I/O, with fsync in what is timed, and keeps its file", () => {
  assert.equal(
    iozoneCommand(2, 8 << 20, 64 << 10),
    "/opt/iozone -I -e -w -s 8192k -r 64k -i 2 -f /mnt/iozone",
  );
});
