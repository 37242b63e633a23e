import { MemoryPages, type ReplicaStore } from "./page_store.ts";
import { testStore } from "../../lab/testing/store_conformance.ts";

testStore({
  name: "in memory",
  open: (): ReplicaStore => ({
    writesThrough: false,
    create: (blocks, pool) => new MemoryPages(blocks, pool),
    begin: () => {},
    end: () => {},
  }),
  close: () => {},
  cutEvery: 1,
});
