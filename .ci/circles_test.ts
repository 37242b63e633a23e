import assert from "node:assert/strict";

const ROOT = new URL("../", import.meta.url);

/** Every TypeScript file, with the files of ours that it imports, types included. */
async function readImports(): Promise<Map<string, string[]>> {
  const { code, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["info", "--json", "--no-lock", "main.ts"],
    cwd: ROOT,
    stderr: "null",
  }).output();
  assert.equal(code, 0);
  const { modules } = JSON.parse(new TextDecoder().decode(stdout)) as {
    modules: {
      specifier: string;
      dependencies?: { code?: { specifier?: string }; type?: { specifier?: string } }[];
    }[];
  };
  const isOurs = (url: string | undefined): url is string => url?.startsWith(ROOT.href) === true;
  return new Map(
    modules.filter(({ specifier }) => isOurs(specifier)).map(({ specifier, dependencies = [] }) => [
      specifier,
      dependencies.flatMap(({ code, type }) => [code?.specifier, type?.specifier]).filter(isOurs),
    ]),
  );
}

/** Files that import each other in a loop, as paths in the order of the loop. */
function findCircle(imports: ReadonlyMap<string, readonly string[]>): string[] {
  const done = new Set<string>();
  const way: string[] = [];
  const visit = (file: string): string[] | undefined => {
    if (done.has(file)) return undefined;
    const at = way.indexOf(file);
    if (at >= 0) return [...way.slice(at), file];
    way.push(file);
    for (const next of imports.get(file) ?? []) {
      const circle = visit(next);
      if (circle !== undefined) return circle;
    }
    way.pop();
    done.add(file);
    return undefined;
  };
  for (const file of imports.keys()) {
    const circle = visit(file);
    if (circle !== undefined) return circle.map((url) => url.slice(ROOT.href.length));
  }
  return [];
}

Deno.test("no file imports itself by way of others, for a type either", async () => {
  const imports = await readImports();
  assert.ok(imports.size > 200, `only ${imports.size} files were found`);
  assert.deepEqual(findCircle(imports), []);
});

Deno.test("a circle is found where there is one", () => {
  const imports = new Map([["a", ["b"]], ["b", ["c", "d"]], ["c", []], ["d", ["b"]]]);
  assert.equal(findCircle(imports).length, 3);
});
