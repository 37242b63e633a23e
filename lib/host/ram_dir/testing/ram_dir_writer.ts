/**
 * For tests: `deno run -A ram_dir_writer.ts DIR` commits one transaction after another into a
 * folder until it is killed. Its transactions are known: {@link transactionOf}.
 */
import { checkpointBody, fullStream, page, zero } from "../../../qemu/testing/synthetic_stream.ts";
import { Replica } from "../../../replica/secondary/replica.ts";
import { SecondaryTaps } from "../../../replica/events/secondary_taps.ts";
import { RamDir } from "../ram_dir.ts";

/** The payload of transaction `number`: a full state first, then checkpoints. */
export function transactionOf(number: number): { full: boolean; bytes: Uint8Array } {
  if (number === 1) return { full: true, bytes: fullStream(1) };
  const pages = [0, 1, 2, 3, 4, 5, 6, 7].map((n) => {
    return (number + n) % 5 === 0 ? zero(n, "pc.ram") : page(n, number % 200 + n, "pc.ram");
  });
  return { full: false, bytes: checkpointBody(number, pages, page(number % 3, number, "rom")) };
}

/** Commits the next transaction. */
export function commitNext(replica: Replica): void {
  const number = replica.committed + 1;
  const { full, bytes } = transactionOf(number);
  replica.begin({ full, based: false });
  replica.receive(bytes, 0, bytes.length);
  replica.commit(number);
}

if (import.meta.main) {
  const replica = new Replica(
    1e8,
    undefined,
    new SecondaryTaps(new Map(), new Set()),
    RamDir.open(Deno.args[0]),
  );
  commitNext(replica);
  console.log("begun");
  for (;;) commitNext(replica);
}
