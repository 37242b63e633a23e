/** As `guest_inputs_e2e_test.ts`, with another NIC and another way of being protected. */
import { testGuestInputs } from "./testing/test_guest_inputs.ts";

testGuestInputs("virtio-net-pci", "snapshot", { datagrams: 2000, segments: 2000 });
testGuestInputs("e1000", "colo", { datagrams: 2000, segments: 2000 });
