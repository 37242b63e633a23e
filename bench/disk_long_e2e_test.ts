import { leavesNothing } from "../lib/lab/testing/leaves_nothing.ts";

Deno.test("e2e: bench disk that is interrupted leaves nothing behind", () =>
  leavesNothing(["bench", "disk", "--quick", "--progress", "always"], /disk: 2 of/));
