/** Protection of VMs under KVM: hundreds of checkpoints, the primary's death, and who goes on. */
import { testKvmScenes } from "../testing/kvm_scenes.ts";

testKvmScenes("11.1", 250);
