/** The same faults between `kemari send` and `kemari recv`, with a key. */
import { makeKeyFile } from "../host/keygen.ts";
import { testFaults } from "./testing/send_recv_faults.ts";

const folder = Deno.makeTempDirSync({ prefix: "kemari-key-" });
globalThis.addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));
makeKeyFile(`${folder}/key`, "kemari");

testFaults("over TLS: ", ["--key", `${folder}/key`]);
