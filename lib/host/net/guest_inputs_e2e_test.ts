/** What the world sends to a protected guest reaches it, at any number of checkpoints, in order. */
import { testGuestInputs } from "./testing/test_guest_inputs.ts";

testGuestInputs("virtio-net-pci", "colo", { datagrams: 1000, segments: 1000 });
