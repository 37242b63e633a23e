/** The bare guest on the other QEMUs. */
import { testBareGuest } from "../testing/bare_guest_boots.ts";

for (const version of ["5.2", "7.2", "10.0"] as const) testBareGuest(version);
