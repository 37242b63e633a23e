/**
 * A `deno lint` plugin that holds the import arrows of ARCHITECTURE.md.
 *
 * ```text
 * foreign_text ← errors ← units, bytes ← qemu, txn, nbd, qmp, packet, control, keys, arbiter, decisions ← replica ← host ← lab ← drill, bench ← cli ← main.ts
 *                                      ← report ← bench, cli
 * host: system ← vm, arbiter, tls, ram_dir, net, image ← disk, home, ssh ← taps, door ← link ← receive ← takeover ← status ← protect ← the commands
 * ```
 *
 * Four rules:
 * - `arrows`: a file imports from its own room or from a room to the left of it; rooms of one rank
 *   (the protocols) never import each other. What lies in a folder `testing/` is imported by tests
 *   only, and by other files in such folders. The sub-rooms of `host` keep the same rule, but for
 *   their tests.
 * - `import-map`: packages come through deno.json's import map only.
 * - `no-io`: outside the rooms that may, no `Deno`, no other runtime global and no `node:` module
 *   that does I/O.
 * - `no-clock`: the rooms below `host` are state machines; time is handed to them.
 */

interface Room {
  /** Imports go to a smaller rank only. */
  readonly rank: number;
  /** Whether the room may touch the outside world. */
  readonly io: boolean;
}

/** Every room there is. A new folder under `lib/` has to be entered here. */
const ROOMS: Readonly<Record<string, Room>> = {
  foreign_text: { rank: -1, io: false },
  errors: { rank: 0, io: false },
  units: { rank: 1, io: false },
  bytes: { rank: 1, io: false },
  qemu: { rank: 2, io: false },
  txn: { rank: 2, io: false },
  nbd: { rank: 2, io: false },
  qmp: { rank: 2, io: false },
  packet: { rank: 2, io: false },
  control: { rank: 2, io: false },
  arbiter: { rank: 2, io: false },
  decisions: { rank: 2, io: false },
  keys: { rank: 2, io: false },
  report: { rank: 2, io: false },
  replica: { rank: 3, io: false },
  host: { rank: 4, io: true },
  lab: { rank: 5, io: true },
  drill: { rank: 6, io: true },
  bench: { rank: 6, io: true },
  cli: { rank: 7, io: false },
  main: { rank: 8, io: true },
  ci: { rank: 9, io: true },
};

/** The sub-rooms of `host`, and what stands on top of them. */
const HOST_RANKS: Readonly<Record<string, number>> = {
  system: 0,
  vm: 1,
  arbiter: 1,
  ram_dir: 1,
  tls: 1,
  ssh: 2,
  net: 1,
  image: 1,
  disk: 2,
  home: 2,
  taps: 3,
  door: 3,
  link: 4,
  receive: 5,
  takeover: 6,
  status: 7,
  protect: 8,
  commands: 9,
};

/** Rooms that only these others may import, however far to the right the importer stands. */
const READERS: Readonly<Record<string, readonly string[]>> = { report: ["bench", "cli", "ci"] };

/** Rooms at or above this rank may look at the clock. */
const CLOCK_RANK = 4;

/** `node:` modules that compute and do nothing else. */
const PURE_MODULES = new Set([
  "node:assert",
  "node:assert/strict",
  "node:buffer",
  "node:crypto",
  "node:util",
  "node:zlib",
]);

const IO_GLOBALS = new Set([
  "Deno",
  "EventSource",
  "WebSocket",
  "Worker",
  "alert",
  "confirm",
  "console",
  "fetch",
  "localStorage",
  "process",
  "prompt",
]);

const CLOCK_GLOBALS = new Set([
  "performance",
  "setImmediate",
  "setInterval",
  "setTimeout",
]);

/** A place in the repository, as the rules see it. */
interface Place {
  readonly room: string;
  /** Where in `host`; undefined elsewhere. */
  readonly hostRoom: string | undefined;
  readonly isTest: boolean;
  /** Whether it helps tests. */
  readonly isTesting: boolean;
}

/** Path segments with `.` and `..` worked out. */
function normalize(path: string): string {
  const kept: string[] = [];
  for (const part of path.split("/")) {
    if (part === "" || part === ".") continue;
    if (part === ".." && kept.length > 0 && kept.at(-1) !== "..") kept.pop();
    else kept.push(part);
  }
  return (path.startsWith("/") ? "/" : "") + kept.join("/");
}

/** The folder the plugin lives in tells where the repository is. */
const ROOT = decodeURIComponent(new URL("../", import.meta.url).pathname);

/** The path inside the repository; `undefined` for a path outside. */
function insideRepository(filename: string): string | undefined {
  const path = filename.startsWith("file:")
    ? decodeURIComponent(new URL(filename).pathname)
    : filename;
  if (!path.startsWith("/")) return normalize(path);
  const whole = normalize(path);
  return whole.startsWith(ROOT) ? whole.slice(ROOT.length) : undefined;
}

function roomOf(path: string): string | undefined {
  const [top, second] = path.split("/");
  if (top === ".ci") return "ci";
  if (top === "bench") return top;
  if (top === "main.ts" || top === "main_test.ts" || top === "main_e2e_test.ts") return "main";
  if (top !== "lib" || second === undefined) return undefined;
  const room = second.replace(/(_test)?\.ts$/, "");
  return Object.hasOwn(ROOMS, room) ? room : undefined;
}

function hostRoomOf(path: string): string {
  const [, , folder, file] = path.split("/");
  return file === undefined ? "commands" : folder;
}

/** The place of a repository path, or `undefined` if it stands in no room. */
function placeOf(path: string): Place | undefined {
  const room = roomOf(path);
  if (room === undefined) return undefined;
  const hostRoom = room === "host" ? hostRoomOf(path) : undefined;
  if (hostRoom !== undefined && !Object.hasOwn(HOST_RANKS, hostRoom)) return undefined;
  return { room, hostRoom, isTest: /_test\.ts$/.test(path), isTesting: path.includes("/testing/") };
}

/** Why `from` must not import `to`, or `undefined` if it may. */
function objection(from: Place, to: Place): string | undefined {
  const forTests = from.isTest || from.isTesting;
  if (to.isTesting && !forTests) return "only tests may import what helps them";
  if (from.room === "host" && to.room === "host") {
    if (forTests || from.hostRoom === to.hostRoom) return undefined;
    return objectionToRanks(HOST_RANKS[from.hostRoom!], HOST_RANKS[to.hostRoom!]);
  }
  if (from.room === to.room) return undefined;
  if (forTests && to.room === "lab") return undefined;
  if (to.isTest) return "a test is not imported";
  const readers = READERS[to.room];
  if (readers) {
    return readers.includes(from.room) ? undefined : `only ${readers.join(", ")} may import it`;
  }
  if (from.room === "report") {
    return ROOMS[to.room].rank < 2 ? undefined : "report draws results and knows nothing else";
  }
  return objectionToRanks(ROOMS[from.room].rank, ROOMS[to.room].rank);
}

function objectionToRanks(mine: number, theirs: number): string | undefined {
  if (theirs < mine) return undefined;
  return theirs === mine
    ? "rooms of one rank do not import each other"
    : "imports go to the left only";
}

/** The text of an import's specifier, where it is written out. */
function literalOf(node: Deno.lint.Node | null | undefined): string | undefined {
  if (node?.type === "Literal" && typeof node.value === "string") return node.value;
  if (node?.type === "TSLiteralType") return literalOf(node.literal as Deno.lint.Node);
  return undefined;
}

/** Calls `seen` for every module specifier of a file, whatever the form of the import. */
function eachSpecifier(seen: (node: Deno.lint.Node, specifier: string) => void) {
  const visit = (node: Deno.lint.Node, source: Deno.lint.Node | null | undefined) => {
    const specifier = literalOf(source);
    if (specifier !== undefined) seen(node, specifier);
  };
  return {
    ImportDeclaration: (node) => visit(node, node.source),
    ExportNamedDeclaration: (node) => visit(node, node.source),
    ExportAllDeclaration: (node) => visit(node, node.source),
    ImportExpression: (node) => visit(node, node.source),
    TSImportType: (node) => visit(node, node.argument),
  } satisfies Deno.lint.LintVisitor;
}

/** Whether an identifier is a name of the runtime's, and not a property or key of that name. */
function standsAlone(node: Deno.lint.Identifier): boolean {
  const parent = node.parent;
  if (parent.type === "MemberExpression" && parent.property === node && !parent.computed) {
    return parent.object.type === "Identifier" && parent.object.name === "globalThis";
  }
  if (parent.type === "TSQualifiedName") return parent.left === node;
  if (parent.type === "Property") return parent.value === node;
  return !/^(TSPropertySignature|TSMethodSignature|PropertyDefinition|MethodDefinition)$/
    .test(parent.type);
}

const arrows: Deno.lint.Rule = {
  create(context) {
    const path = insideRepository(context.filename);
    if (path === undefined) return {};
    const from = placeOf(path);
    if (from === undefined) {
      return {
        Program: (node) =>
          context.report({
            node,
            message: `${path} stands in no room`,
            hint: "Enter the folder, with its rank, in ROOMS of .ci/layers.ts and ARCHITECTURE.md",
          }),
      };
    }
    const folder = path.slice(0, path.lastIndexOf("/") + 1);
    return eachSpecifier((node, specifier) => {
      if (!specifier.startsWith(".") || !specifier.endsWith(".ts")) return;
      const target = normalize(folder + specifier);
      const to = placeOf(target);
      const why = to ? objection(from, to) : "it stands in no room";
      if (why) {
        const mine = from.hostRoom === undefined ? from.room : `host's ${from.hostRoom}`;
        context.report({ node, message: `${mine} may not import ${target}: ${why}` });
      }
    });
  },
};

const importMap: Deno.lint.Rule = {
  create(context) {
    return eachSpecifier((node, specifier) => {
      if (!/^(npm|jsr|https?):/.test(specifier)) return;
      context.report({
        node,
        message: `${specifier} is named outside the import map`,
        hint: "Enter the package in deno.json's imports, with its version, and import that name",
      });
    });
  },
};

const noIo: Deno.lint.Rule = {
  create(context) {
    const place = placeOf(insideRepository(context.filename) ?? "");
    if (place === undefined || place.isTest || place.isTesting || ROOMS[place.room].io) return {};
    const hint = "Take what it gives as a parameter; lib/host does the I/O";
    return {
      ...eachSpecifier((node, specifier) => {
        if (!specifier.startsWith("node:") || PURE_MODULES.has(specifier)) return;
        context.report({ node, message: `${place.room} may not use ${specifier}`, hint });
      }),
      Identifier(node) {
        if (!IO_GLOBALS.has(node.name) || !standsAlone(node)) return;
        context.report({ node, message: `${place.room} may not use ${node.name}`, hint });
      },
    };
  },
};

const noClock: Deno.lint.Rule = {
  create(context) {
    const place = placeOf(insideRepository(context.filename) ?? "");
    if (
      place === undefined || place.isTest || place.isTesting || ROOMS[place.room].rank >= CLOCK_RANK
    ) return {};
    const report = (node: Deno.lint.Node, name: string) =>
      context.report({
        node,
        message: `${place.room} may not use ${name}`,
        hint: "Take the time as a parameter (nowMs) and return when to be called again",
      });
    return {
      Identifier(node) {
        if (CLOCK_GLOBALS.has(node.name) && standsAlone(node)) report(node, node.name);
      },
      MemberExpression(node) {
        const { object, property } = node;
        if (object.type !== "Identifier" || property.type !== "Identifier") return;
        if (object.name === "Date" && property.name === "now") report(node, "Date.now");
      },
    };
  },
};

const plugin: Deno.lint.Plugin = {
  name: "layers",
  rules: { arrows, "import-map": importMap, "no-io": noIo, "no-clock": noClock },
};
export default plugin;
