/** The mutation check itself: what it makes of a file, and what becomes of mutants in a small project. */
import { type ChildProcess, spawn } from "node:child_process"
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { afterEach, describe, expect, it } from "vitest"
import { campaign, type Result } from "../scripts/mutate/campaign.ts"
import {
  apply,
  instrument,
  kinds,
  type Mutant,
  mutantsOf,
  nameOf,
  placeOf
} from "../scripts/mutate/mutants.ts"
import { projectAt } from "../scripts/mutate/project.ts"
import { queueing } from "../scripts/mutate/queueing.ts"
import {
  complaints,
  documentOf,
  type Measured,
  readExplanations,
  scoreOf,
  tallies
} from "../scripts/mutate/report.ts"
import { root } from "../scripts/workspace.ts"

const path = "packages/tiny/src/index.ts"
const mutants = (text: string) => mutantsOf({ path, text })

/** Each mutant as "kind: what the file says instead", blanks apart. */
const shown = (text: string): ReadonlyArray<string> =>
  mutants(text).map((mutant) => `${mutant.kind}: ${apply(text, mutant).replace(/\s+/g, " ").trim()}`)

describe("the mutants of a file", () => {
  it.each([
    ["Effect.uninterruptible(work)", ["mask: work"]],
    [
      "startUnsafe(context, work, { uninterruptible: true })",
      ["handover: undefined", "mask: startUnsafe(context, work, { uninterruptible: false })"]
    ],
    [
      "const x = Effect.uninterruptibleMask((restore) => restore(work))",
      [
        "mask: const x = Effect.suspend(() => ((restore) => restore(work))((self) => self))",
        "opening: const x = Effect.uninterruptibleMask((restore) => work)"
      ]
    ],
    ["const x = Effect.interruptible(work)", ["opening: const x = work"]],
    ["const x = Effect.addFinalizer(() => free)", ["finalizer: const x = Effect.void"]],
    ["Effect.ensuring(work, free)", ["finalizer: work"]],
    ["work.pipe(Effect.ensuring(free))", ["finalizer: work.pipe(((self) => self))"]],
    ["const x = Effect.onInterrupt(work, () => free)", ["finalizer: const x = work"]],
    [
      "Effect.acquireRelease(take, () => give)",
      ["finalizer: Effect.acquireRelease(take, () => Effect.void)"]
    ],
    [
      "Effect.acquireUseRelease(take, use, () => give)",
      ["finalizer: Effect.acquireUseRelease(take, use, () => Effect.void)"]
    ],
    [
      "Effect.callback((resume) => { listen(resume)\n return Effect.sync(stop) })",
      [
        "handover: Effect.callback((resume) => { undefined return Effect.sync(stop) })",
        "finalizer: Effect.callback((resume) => { listen(resume) return undefined })"
      ]
    ],
    [
      "try { work() } finally { lock.release() }",
      ["finalizer: try { work() } finally {}", "handover: try { work() } finally { undefined }"]
    ],
    ["timers.delete(timer)", ["handover: undefined"]],
    ["Child.resumeWith(waiter, resume, exit)", ["handover: undefined"]],
    ["const f = () => cell.unlink()", ["handover: const f = () => undefined"]],
    ["const f = () => Child.startUnsafe(work)", ["handover: const f = () => undefined"]],
    ["open && listener?.removeEventListener()", ["handover: open && undefined"]],
    ["const g = function* () { yield* scope.close }", ["handover: const g = function* () { undefined }"]],
    ["Effect.andThen(awaitEnd(child), result)", ["wait: result"]],
    ["Effect.andThen(settled, () => result)", ["wait: (() => result)()"]],
    ["Effect.tap(work, tell)", ["wait: work"]],
    ["armed = false", ["mark: undefined"]],
    ["count++", ["mark: undefined"]],
    ["if (this.reason !== undefined) return\nwork()", ["first: if (false) return work()"]],
    ["if (open) cell.unlink()", ["guard: if (!(open)) cell.unlink()", "handover: if (open) undefined"]]
  ] as ReadonlyArray<readonly [string, ReadonlyArray<string>]>)("of %j are those", (text, expected) => {
    const body = text.includes("return") || text.includes("this.") ? `function f() { ${text} }` : text
    const inBody = (mutant: string) =>
      body === text ? mutant : mutant.replace(/^(\w+): (.*)$/, "$1: function f() { $2 }")
    expect(shown(body)).toEqual(expected.map(inBody))
  })

  it.each([
    "work()",
    "const x = values.map((value) => value + 1)",
    "if (a) b = c",
    "Effect.suspend(() => cell.cancel())",
    "const f = () => Effect.succeed(1)",
    "Effect.callback((resume) => { return undefined })"
  ])("of %j are none", (text) => {
    expect(shown(text)).toEqual([])
  })

  it("have names that do not depend on the line, and a number when one name would stand for two", () => {
    const text = "a.clear()\n\na.clear()\n"
    expect(mutants(text).map(nameOf)).toEqual([`${path} handover a.clear()`, `${path} handover a.clear() #2`])
    expect(mutants(text).map(placeOf)).toEqual([`${path}:1:handover`, `${path}:3:handover`])
    expect(mutants(`// one more line\n${text}`).map(nameOf)).toEqual(mutants(text).map(nameOf))
  })

  it("are instrumented so that the file behaves as before and tells which of them it comes by", () => {
    const text = [
      "const log = []",
      "let open = true",
      "const cell = { close: () => log.push('closed') }",
      "const f = () => {",
      "  if (!open) return",
      "  log.push('first')",
      "  open = false",
      "  if (log.length > 0) cell.close()",
      "}",
      "f()",
      "f()",
      "return log"
    ].join("\n")
    const inFunction = `const run = () => {\n${text}\n}`
    const all = mutantsOf({ path, text: inFunction })
    const reached = new Set<number>()
    const globals = globalThis as { __reached?: ((mutant: number) => void) | undefined }
    const before = globals.__reached
    globals.__reached = (mutant) => reached.add(mutant)
    try {
      expect(new Function(`${instrument(inFunction, all, 100)}; return run()`)()).toEqual(["first", "closed"])
    } finally {
      globals.__reached = before
    }
    expect([...reached].toSorted((a, b) => a - b)).toEqual(all.map((_, i) => 100 + i))
  })
})

const dirs: Array<string> = []
afterEach(() => {
  for (const dir of dirs.splice(0)) rmSync(dir, { recursive: true, force: true, maxRetries: 5 })
})

const source = `
const registry = new Set<string>()
let told = 0

export const enter = (name: string): number => {
  if (registry.has(name)) return registry.size
  registry.add(name)
  return registry.size
}

export const empty = (): void => {
  while (registry.size > 0) for (const name of registry) registry.delete(name)
}

export const tell = (name: string | undefined): string => {
  told++
  if (name === undefined) return "nobody"
  return name.toUpperCase()
}

export const forgetAll = (): void => {
  registry.clear()
}
`

const tests = `
import { expect, it } from "vitest"
import { empty, enter, tell } from "../src/index.ts"

it("counts each name once", () => {
  expect([enter("a"), enter("a"), enter("b")]).toEqual([1, 1, 2])
  empty()
  expect(enter("c")).toBe(1)
})

it("tells", () => {
  expect(tell("a")).toBe("A")
})
`

const project = () => {
  const dir = realpathSync(mkdtempSync(join(tmpdir(), "mutate-test-")))
  dirs.push(dir)
  const files = {
    "package.json": JSON.stringify({ type: "module" }),
    "vitest.config.ts": `export default { test: { include: ["packages/*/test/*.test.ts"] } }`,
    "packages/tiny/package.json": JSON.stringify({ name: "@curfew/tiny", type: "module" }),
    [path]: source,
    "packages/tiny/test/index.test.ts": tests
  }
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(dir, name)), { recursive: true })
    writeFileSync(join(dir, name), text)
  }
  cpSync(join(root, "tsconfig.base.json"), join(dir, "tsconfig.base.json"))
  return dir
}

const verdicts = (results: ReadonlyArray<Result>) =>
  Object.fromEntries(results.map(({ mutant, verdict }) => [`${mutant.kind} ${mutant.code}`, verdict]))

describe("a campaign", () => {
  it("kills, waits for, rules out or lets live, remembers it, and tries again what a change may matter to", async () => {
    const dir = project()
    const phases: Array<string> = []
    const run = () =>
      campaign(projectAt(dir, ["tiny"]), {
        packages: ["tiny"],
        workers: 1,
        memory: join(dir, ".mutate"),
        modules: join(root, "node_modules"),
        patience: (slowest) => 1_000 + 5 * slowest,
        progress: (phase, done, all) => {
          if (done === 0) phases.push(`${phase} ${all}`)
        }
      })
    const first = await run()
    expect(verdicts(first)).toEqual({
      "first if (registry.has(name)) return": "survived",
      "handover registry.add(name)": "killed",
      "handover registry.delete(name)": "timed out",
      "mark told++": "survived",
      "first if (name === undefined) return": "ruled out",
      "handover registry.clear()": "survived"
    })
    expect(first.find(({ verdict }) => verdict === "killed")?.by).toBe(
      "packages/tiny/test/index.test.ts: counts each name once"
    )
    expect(first.at(-1)?.reachedBy).toBe(0)
    expect(tallies(first).map(scoreOf)).toEqual(["40.0"])

    // The second run finds everything in its memory; a stronger test is tried against what survived alone.
    expect(await run()).toEqual(first)
    const stronger = `${tests}\nimport { forgetAll } from "../src/index.ts"\nit("forgets", () => {\n  enter("x")\n  forgetAll()\n  expect(enter("y")).toBe(1)\n})\n`
    writeFileSync(join(dir, "packages/tiny/test/index.test.ts"), stronger)
    expect(verdicts(await run())["handover registry.clear()"]).toBe("killed")
    expect(phases).toEqual([
      "what the tests come by 1",
      "mutants 6",
      "what the tests come by 0",
      "mutants 0",
      "what the tests come by 1",
      "mutants 5"
    ])
    // Nine runs of a small test file, one of which has to be given up: a busy machine takes its time.
  }, 240_000)

  it("does not take for a hang what a busy machine holds up, and lets a survivor meet only what is new", async () => {
    const dir = project()
    const runs = join(dir, "runs")
    // The first run, in which nothing is changed, is quick; from then on the machine is busy.
    const held = `
import { appendFileSync, existsSync, readFileSync } from "node:fs"
import { expect, it } from "vitest"
import { tell } from "../src/index.ts"

it("tells", () => {
  expect(tell("a")).toBe("A")
  const busy = existsSync(${JSON.stringify(runs)})
  appendFileSync(${JSON.stringify(runs)}, "x")
  if (busy) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3_000)
})
`
    writeFileSync(join(dir, "packages/tiny/test/index.test.ts"), held)
    const run = () =>
      campaign(projectAt(dir, ["tiny"]), {
        packages: ["tiny"],
        workers: 1,
        memory: join(dir, ".mutate"),
        modules: join(root, "node_modules"),
        patience: (slowest) => 500 + 2 * slowest,
        progress: () => {}
      })
    expect(verdicts(await run())).toMatchObject({ "mark told++": "survived" })
    const before = readFileSync(runs, "utf8").length
    writeFileSync(
      join(dir, "packages/tiny/test/other.test.ts"),
      held.replace("const busy =", "const busy = false &&")
    )
    const second = await run()
    expect(second.find(({ mutant }) => mutant.code === "told++")).toMatchObject({
      verdict: "survived",
      reachedBy: 2
    })
    // The new file alone: once to see what it comes by, and once under the survivor.
    expect(readFileSync(runs, "utf8").length - before).toBe(2)
  }, 240_000)

  it("does not begin when a test fails without a mutant", async () => {
    const dir = project()
    writeFileSync(
      join(dir, "packages/tiny/test/index.test.ts"),
      `import { expect, it } from "vitest"\nit("is red", () => expect(1).toBe(2))\n`
    )
    const options = { packages: ["tiny"], workers: 1, memory: join(dir, ".mutate"), progress: () => {} }
    const run = campaign(projectAt(dir, ["tiny"]), { ...options, modules: join(root, "node_modules") })
    await expect(run).rejects.toThrow("packages/tiny/test/index.test.ts: is red")
  })
})

// Only Linux tells, and there `taskset` makes one processor out of many.
describe.runIf(existsSync("/proc/self/schedstat") && existsSync("/usr/bin/taskset"))(
  "waiting for a processor",
  () => {
    const loops = (count: number): ChildProcess => {
      const loop = `process.stdout.write("."); for (;;) {}`
      const all = Array.from({ length: count }, () => `taskset -c 0 "${process.execPath}" -e '${loop}' &`)
      return spawn("sh", ["-c", `${all.join(" ")} wait`], {
        detached: true,
        stdio: ["ignore", "pipe", "ignore"]
      })
    }

    it("is counted for those who share one, and is never longer than the time that went by", async () => {
      const group = loops(3)
      try {
        let begun = 0
        await new Promise<void>((resolve) => {
          group.stdout?.on("data", (dots: Buffer) => {
            begun += dots.length
            if (begun === 3) resolve()
          })
        })
        const from = performance.now()
        const queued = queueing(group.pid as number)
        let waited = 0
        // Three that never rest: at any time two of them wait.
        while (waited < 300) {
          await new Promise((resolve) => setTimeout(resolve, 20))
          waited += queued()
          expect(waited).toBeLessThanOrEqual(performance.now() - from)
        }
      } finally {
        process.kill(-(group.pid as number), "SIGKILL")
      }
    })

    it("is nothing for a group that rests", async () => {
      const group = spawn("sleep", ["60"], { detached: true, stdio: "ignore" })
      try {
        const queued = queueing(group.pid as number)
        expect(queued()).toBe(0)
      } finally {
        group.kill("SIGKILL")
      }
    })
  }
)

describe("the report", () => {
  const result = (text: string, verdict: Result["verdict"]): Result => ({
    mutant: mutants(text)[0] as Mutant,
    verdict,
    by: undefined,
    reachedBy: 2
  })
  const survivor = result("a.clear()", "survived")
  const name = `${path} handover a.clear()`

  it("complains about a survivor without an explanation and an explanation without a survivor", () => {
    const explained = readExplanations(`# a comment\n\n${name}\n  Nothing reads it\n  afterwards.\n`)
    expect(explained.get(name)).toBe("Nothing reads it afterwards.")
    expect(complaints([survivor], explained, ["tiny"])).toEqual([])
    expect(complaints([survivor], new Map(), ["tiny"])).toEqual([
      `${path}:1:handover survived 2 test files: write the test that notices, or explain "${name}".`
    ])
    expect(complaints([survivor], readExplanations(`${name}\n`), ["tiny"])).toHaveLength(1)
    expect(complaints([result("a.clear()", "killed")], explained, ["tiny"])).toEqual([
      `"${name}" is explained and does not survive: take the explanation out.`
    ])
    // What was not tried says nothing about its explanations.
    expect(complaints([], explained, ["other"])).toEqual([])
  })

  it("has a row for each package and lists survivors, and keeps those of packages that were not tried", () => {
    const explained = new Map([[name, "Nothing reads it."]])
    let text = "before"
    const all: Measured = {
      packages: ["tiny", "other"],
      sources: (name) => [`packages/${name}/src/index.ts`],
      text: () => text
    }
    const first = documentOf([survivor, result("b.delete(c)", "killed")], explained, all, "")
    expect(first).toContain("| tiny | 2 | 1 | 0 | 0 | 1 | 50.0 % |")
    expect(first).toContain(`## tiny\n\n- \`${path}:1:handover\` \`a.clear()\`: Nothing reads it.\n`)
    for (const what of Object.values(kinds)) expect(first).toContain(what)
    const other: Result = { ...survivor, mutant: { ...survivor.mutant, file: "packages/other/src/index.ts" } }
    const second = documentOf([{ ...other, verdict: "timed out" }], explained, all, first)
    expect(second).toContain("| tiny | 2 | 1 | 0 | 0 | 1 | 50.0 % |\n| other | 1 | 0 | 1 | 0 | 0 | 100.0 % |")
    expect(second).toContain(`\`${path}:1:handover\``)
    expect(documentOf([survivor, result("b.delete(c)", "killed")], explained, all, second)).toBe(second)
    // What was tried before the sources changed is said to be of before.
    expect(second).not.toContain("have changed")
    text = "after"
    const third = documentOf([{ ...other, verdict: "timed out" }], explained, all, second)
    expect(third).toContain("The sources of tiny have changed since they were tried")
    expect(third).toContain("| tiny | 2 | 1 | 0 | 0 | 1 | 50.0 % |")
    expect(third.split("Nothing reads it.")).toHaveLength(2)
  })
})
