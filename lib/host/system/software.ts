import manifest from "../../../deno.json" with { type: "json" };

/** How this program names itself to the other end. */
export const SOFTWARE = `kemari ${manifest.version}`;
