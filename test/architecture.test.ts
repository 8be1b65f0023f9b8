import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { describe, expect, test } from "vitest"
import { filesBelow, packages, root } from "../scripts/workspace.ts"
import {
  boundaries,
  type Exception,
  effectImports,
  forbidden,
  invariants,
  type Layers,
  readmes,
  undocumented
} from "./support/architecture.ts"

const layers: Layers = {
  order: [
    ["reason"],
    ["scope"],
    ["shield", "guard", "gather", "singleflight"],
    ["request", "shutdown", "promise"],
    ["http", "grpc", "tunnel"],
    ["tunnel-cli"]
  ],
  beside: ["testing"],
  neighbours: []
}

/** What the sources may not use, where one may, and why. An entry that nothing needs fails. */
const exceptions: ReadonlyArray<Exception> = [
  {
    file: "packages/scope/src/internal/child.ts",
    what: "runForkWith",
    reason: "The one place where a fiber starts; whoever starts it waits for it, or hands it to an owner."
  },
  {
    file: "packages/scope/src/internal/timer.ts",
    what: "setTimeout",
    reason:
      "Most timers are disarmed before they fire: without a fiber each costs a tenth. A clock of the program's is asked."
  },
  {
    file: "packages/reason/src/internal/age.ts",
    what: "performance.now",
    reason: "The age of a live thing is read for display only; no behaviour depends on it."
  },
  ...(["new Promise", ".then()", "floating promise", "Promise.resolve", "Promise.reject"] as const).map(
    (what) => ({
      file: "packages/promise/src/internal/bridge.ts",
      what,
      reason: "The one bridge between promises and fibers; both outcomes are handled in the same call."
    })
  ),
  {
    file: "packages/grpc/src/internal/server/bridge.ts",
    what: ".then()",
    reason: "A promise-style handler gives a promise; its rejection becomes the status of the call."
  },
  {
    file: "packages/grpc/src/internal/server/bridge.ts",
    what: "floating promise",
    reason: "Both outcomes of that promise are handled in the same call; nothing is left to wait for."
  },
  {
    file: "packages/grpc/src/internal/turns.ts",
    what: "setImmediate",
    reason:
      "grpc-js ends the requests of a cancelled call before it says so, and tells of messages one by one; only turns tell what has come."
  },
  ...(["new Promise", ".then()", "floating promise"] as const).map((what) => ({
    file: "packages/http/src/internal/bridge.ts",
    what,
    reason:
      "The one bridge to plain handlers and their servers; it makes promises, and hands on what settles."
  })),
  {
    file: "packages/testing/src/internal/command.ts",
    what: "Effect.tryPromise",
    reason: "The command line imports the program that it is given, and an import is a promise."
  },
  {
    file: "packages/testing/src/internal/runner.ts",
    what: "runForkWith",
    reason: "The one place where a program under test is started; its world drives it and ends it."
  },
  {
    file: "packages/testing/src/internal/runner.ts",
    what: "runPromise",
    reason: "A matcher of Vitest has to give a promise."
  },
  {
    file: "packages/tunnel/src/internal/bridge.ts",
    what: ".then()",
    reason: "A grpc.Server handler may return a promise; its rejection becomes the status of the call."
  },
  {
    file: "packages/tunnel/src/internal/bridge.ts",
    what: "floating promise",
    reason: "Both outcomes of that promise are handled in the same call; nothing is left to wait for."
  },
  {
    file: "packages/tunnel/src/internal/bridge.ts",
    what: "Effect.tryPromise",
    reason: "Call credentials hand out their metadata in a promise."
  },
  {
    file: "packages/tunnel/src/internal/bridge.ts",
    what: "setImmediate",
    reason:
      "grpc-js ends the requests of a lost connection before it says so; only turns of the event loop tell."
  },
  {
    file: "packages/tunnel/src/internal/bridge.ts",
    what: "nextTick",
    reason: "grpc-js demands that a call's status and write callbacks come in a later turn, and in order."
  },
  {
    file: "packages/tunnel/src/internal/intake.ts",
    what: "setImmediate",
    reason: "It shares turns of the event loop out among frames; its tunnel's scope stops it."
  },
  {
    file: "packages/tunnel-cli/src/internal/bridge.ts",
    what: "setImmediate",
    reason:
      "grpc-js ends the requests of a cancelled call before it says so; only turns of the event loop tell."
  }
]

const sources = filesBelow("packages", (path) => /^packages\/[^/]+\/src\/.*\.ts$/.test(path)).map((path) => ({
  path,
  text: readFileSync(join(root, path), "utf8")
}))

const dependencies = Object.fromEntries(
  packages().map(({ dir, manifest }) => [
    dir.slice("packages/".length),
    Object.keys(manifest.dependencies ?? {})
      .filter((name) => name.startsWith("@curfew/"))
      .map((name) => name.slice("@curfew/".length))
  ])
)

describe("the source tree", () => {
  test("there are sources to check", () => {
    expect(sources.length).toBeGreaterThan(0)
  })

  test("every import of a package is declared and comes from a lower layer", () => {
    expect(boundaries(sources, dependencies, layers)).toEqual([])
  })

  test("Effect is imported module by module", () => {
    expect(effectImports(sources)).toEqual([])
  })

  test("no work without an owner, no promises, no wall clock, no chance", () => {
    expect(forbidden(sources, exceptions)).toEqual([])
  })

  test("every mechanism opens with its invariants", () => {
    expect(invariants(sources)).toEqual([])
  })

  test("every public export has a doc comment", () => {
    expect(undocumented(sources)).toEqual([])
  })

  test("every package has a README", () => {
    const names = Object.keys(dependencies)
    const paths = names.map((name) => `packages/${name}/README.md`)
    expect(
      readmes(
        names,
        paths.filter((path) => existsSync(join(root, path)))
      )
    ).toEqual([])
  })
})

const plant = (text: string, path = "packages/guard/src/Planted.ts") => [{ path, text }]

describe("the check of boundaries notices", () => {
  const declared = {
    reason: [],
    scope: ["reason"],
    shield: ["reason"],
    guard: ["reason", "scope"],
    testing: []
  }
  const check = (text: string, path?: string) => boundaries(plant(text, path), declared, layers)

  test("nothing in an import that is declared and from a lower layer", () => {
    expect(check(`import * as Scope from "@curfew/scope/Scope"`)).toEqual([])
  })

  test.each([
    ["an import from a higher layer", `import { x } from "@curfew/tunnel"`, "not in a lower layer"],
    ["an import from the same layer", `import { x } from "@curfew/shield"`, "not in a lower layer"],
    ["an import of testing", `import { x } from "@curfew/testing"`, "not in a lower layer"],
    ["an import of an unknown package", `import { x } from "@curfew/guard"`, "its own package"],
    ["a type import", `import type { X } from "@curfew/shield/X"`, "not in a lower layer"],
    ["an inline type import", `type A = import("@curfew/shield").X`, "not in a lower layer"],
    ["a dynamic import", `const a = () => import("@curfew/shield")`, "not in a lower layer"],
    ["a re-export", `export * from "@curfew/shield"`, "not in a lower layer"],
    ["a path out of the package", `import { x } from "../../scope/src/Scope.ts"`, "reaches out"]
  ])("%s", (_, text, message) => {
    expect(check(text)).toEqual([expect.stringContaining(message)])
  })

  test("an import that is not declared", () => {
    expect(check(`import { x } from "@curfew/scope"`, "packages/shield/src/A.ts")).toEqual([
      "packages/shield/src/A.ts:1 imports scope, which its package.json does not declare"
    ])
  })

  test("a package that is not in the list of layers", () => {
    expect(boundaries([], { novel: [] }, layers)).toEqual(["packages/novel is not in the list of layers"])
  })

  test("a declared dependency on a higher layer", () => {
    expect(boundaries([], { scope: ["guard"] }, layers)).toEqual([
      expect.stringContaining("depends on guard")
    ])
  })

  test("nothing when neighbours are listed", () => {
    const listed: Layers = { ...layers, neighbours: [["gather", "shield"]] }
    const source = plant(`import { x } from "@curfew/shield"`, "packages/gather/src/A.ts")
    expect(boundaries(source, { gather: ["shield"] }, listed)).toEqual([])
    expect(boundaries(source, { gather: ["shield"] }, layers)).toHaveLength(2)
  })
})

describe("the check of Effect's imports notices", () => {
  test("nothing in a namespace of a module", () => {
    expect(effectImports(plant(`import * as Effect from "effect/Effect"`))).toEqual([])
  })

  test.each([
    ["the root", `import { Effect } from "effect"`],
    ["the root as a namespace", `import * as E from "effect"`],
    ["the root for a type", `import type { Effect } from "effect"`],
    ["a named import", `import { gen } from "effect/Effect"`],
    ["a re-export", `export * from "effect/Effect"`],
    ["a dynamic import", `const a = () => import("effect/Effect")`]
  ])("%s", (_, text) => {
    expect(effectImports(plant(text))).toHaveLength(1)
  })
})

describe("the check of what is forbidden notices", () => {
  const what = (text: string) => forbidden(plant(text), []).map((line) => line.replace(/^.* uses /, ""))

  test("nothing in comments, strings, types and Effect's own functions", () => {
    expect(
      what(`
        // setTimeout
        const a = "Date.now()"
        type B = Promise<void>
        const c = Effect.catch(work, () => other).pipe(Effect.catch(f))
        const d = (at: number) => new Date(at)
        const e = void 0
      `)
    ).toEqual([])
  })

  test.each([
    ["forkDetach", "const a = Effect.forkDetach(b)"],
    ["forkDetach", `const a = Effect["forkDetach"](b)`],
    ["forkDetach", "const a = b.pipe(Effect.forkDetach)"],
    ["runFork", "Effect.runFork(b)"],
    ["runForkWith", "Effect.runForkWith(c)(b)"],
    ["runPromise", "const a = Effect.runPromise(b)"],
    ["runPromiseExit", "const a = Effect.runPromiseExit(b)"],
    ["runCallback", "Effect.runCallback(b)"],
    ["runSync", "Effect.runSync(b)"],
    ["setTimeout", "setTimeout(f, 1)"],
    ["setTimeout", "globalThis.setTimeout(f, 1)"],
    ["setInterval", "setInterval(f, 1)"],
    ["setImmediate", "const later = setImmediate"],
    ["queueMicrotask", "queueMicrotask(f)"],
    ["nextTick", "process.nextTick(f)"],
    ["timers", `import * as Timers from "node:timers"`],
    ["Date.now", "const a = Date.now()"],
    ["Date.now", "const a = globalThis.Date.now()"],
    ["new Date()", "const a = new Date()"],
    ["Math.random", "const a = Math.random()"],
    ["performance.now", "const a = performance.now()"],
    ["new Promise", "const a = new Promise(f)"],
    ["Promise.all", "const a = Promise.all(b)"],
    [".then()", "const a = b.then(f)"],
    [".catch()", "const a = b().catch(f)"],
    ["async", "const a = async () => 1"],
    ["async", "const a = { async b() {} }"],
    ["await", "const a = await b"],
    ["floating promise", "void work()"]
  ])("%s in `%s`", (name, text) => {
    expect(what(text)).toContain(name)
  })

  test.each([
    ["a promise with a handler", "work.finally(f)"],
    ["a call of an async function", "const work = async () => 1\nwork()"],
    ["a microtask made of a promise", "Promise.resolve().then(f)"]
  ])("%s that nobody waits for", (_, text) => {
    expect(what(text)).toContain("floating promise")
  })

  const file = "packages/guard/src/Planted.ts"
  const timer: Exception = { file, what: "setTimeout", reason: "the one bridge to the clock" }

  test("nothing where an exception is listed", () => {
    expect(forbidden(plant("setTimeout(f, 1)"), [timer])).toEqual([])
  })

  test("an exception for something else", () => {
    expect(forbidden(plant("setInterval(f, 1)"), [timer])).toHaveLength(2)
  })

  test("an exception without a reason", () => {
    expect(forbidden(plant("setTimeout(f, 1)"), [{ ...timer, reason: " " }])).toEqual([
      expect.stringContaining("has no reason")
    ])
  })

  test("an exception for a file that does not exist", () => {
    expect(forbidden([], [timer])).toEqual([expect.stringContaining("does not exist")])
  })

  test("an exception that nothing needs", () => {
    expect(forbidden(plant("const a = 1"), [timer])).toEqual([expect.stringContaining("is not needed")])
  })
})

describe("the check of invariants notices", () => {
  const path = "packages/guard/src/internal/guard.ts"

  test("nothing in a file that opens with them", () => {
    expect(
      invariants(plant("/**\n * How it works.\n *\n * ## Invariants\n *\n * 1. One.\n */\n", path))
    ).toEqual([])
    expect(invariants(plant("/*\n * Invariants:\n * 1. One.\n */\n", path))).toEqual([])
  })

  test("a file without them", () => {
    expect(invariants(plant("/** How it works. */\nexport const a = 1", path))).toHaveLength(1)
  })

  test("a file that has them after its code", () => {
    expect(invariants(plant("export const a = 1\n/* Invariants */", path))).toHaveLength(1)
  })
})

describe("the check of doc comments notices", () => {
  test("nothing in documented exports and in overloads after the first", () => {
    expect(
      undocumented(
        plant(`
          /** A. */
          export const a = 1
          /** B. */
          export function b(x: string): void
          export function b(x: number): void
          export function b(): void {}
          export { c } from "./C.ts"
        `)
      )
    ).toEqual([])
  })

  test.each([
    ["a const", "export const a = 1"],
    ["a function", "export function a() {}"],
    ["a class", "export class A {}"],
    ["an interface", "export interface A {}"],
    ["a type", "export type A = 1"],
    ["an export with a plain comment", "// A.\nexport const a = 1"],
    ["a second export below a documented one", "/** A. */\nexport interface A {}\nexport const A = 1"]
  ])("%s", (_, text) => {
    expect(undocumented(plant(text))).toHaveLength(1)
  })
})

describe("the check of READMEs notices", () => {
  test("a package without one", () => {
    expect(readmes(["guard", "scope"], ["packages/scope/README.md"])).toEqual([
      "packages/guard has no README.md"
    ])
  })
})
