import type { DiskUnfit } from "../../decisions/disk_fitness.ts";
import { TransportError } from "../../errors.ts";

/** Messages on a disk that does not fit the committed state. */
export function unfitDisk(name: string, why: DiskUnfit): TransportError {
  const wait = "let the VM run at the primary until kemari status there says `in step`";
  const [what, hint] = {
    unnamed: [
      "the VM's state here was committed without it, so its content is of another moment",
      `give both sides --disk ${name}=… and protect the VM anew`,
    ],
    incomplete: ["it does not fit the VM's state here: its copy is not complete", wait],
    outrun: [
      "it does not fit the VM's state here: the primary has written it since",
      wait,
    ],
  }[why];
  return new TransportError(`disk ${name}`, "write", what, { party: "disk", hint });
}
