import { join } from "node:path"
import { describe, expect, test } from "vitest"
import { type Fence, fencesOf, fileOf, generate, generated, moduleOf } from "../scripts/docTests.ts"

describe("the examples in the docs run", () => {
  const fences = generate()
  test("each has a module of its own", () => {
    expect(new Set(fences.map(fileOf)).size).toBe(fences.length)
  })
  // Promises have an owner that stays in the live tree, which other examples look at.
  const owned = (fence: Fence) => Number(fence.code.includes("@curfew/promise"))
  for (const fence of fences.toSorted((a, b) => owned(a) - owned(b))) {
    test.skipIf(!fence.run)(
      fence.run ? fence.name : `${fence.name} (no-run, type-checked only)`,
      async () => {
        await import(/* @vite-ignore */ join(generated, fileOf(fence)))
      }
    )
  }
})

describe("a fence becomes a module", () => {
  const only = (path: string, text: string) => {
    const [fence] = fencesOf(path, text)
    if (fence === undefined) throw new Error("no fence")
    return fence
  }

  test("an expression and a const are asserted, and a promise at the top level is awaited", () => {
    const text = moduleOf(only("a.md", "```ts\n1 + 1 // => 2\nconst x = [1] // => [1]\n```"))
    expect(text).toContain("expectValue(await (1 + 1)).toEqual(2)")
    expect(text).toContain("const x = [1]; expectValue(await (x)).toEqual([1])")
  })

  test("an expression over several lines is asserted as a whole", () => {
    expect(moduleOf(only("a.md", "```ts\nMath.max(\n  1,\n  2\n) // => 2\n```"))).toContain(
      "expectValue(await (Math.max(\n  1,\n  2\n))).toEqual(2)"
    )
  })

  test("what is asserted is the statement that ends last on the line", () => {
    expect(moduleOf(only("a.md", "```ts\n[1].map((x) => { f(); return x }) // => [1]\n```"))).toContain(
      "expectValue(await ([1].map((x) => { f(); return x }))).toEqual([1])"
    )
  })

  test("what is logged is what is asserted", () => {
    expect(moduleOf(only("a.md", "```ts\nconsole.log(1) // => 1\n```"))).toContain(
      "expectValue(await (1)).toEqual(1)"
    )
  })

  test("a doc comment loses its stars, and code outside of doc comments is no example", () => {
    const source = "/**\n * ```ts\n * 1 // => 1\n * ```\n */\nconst a = `\n```ts\n`"
    expect(fencesOf("a.ts", source)).toEqual([{ name: "a.ts:2", run: true, code: "1 // => 1" }])
  })

  test("a fence tagged no-run does not run", () => {
    expect(only("a.md", "```ts no-run\nx\n```").run).toBe(false)
  })

  test("an assertion after nothing is an error", () => {
    expect(() => moduleOf(only("a.md", "```ts\n\n// => 1\n```"))).toThrow("nothing ends before")
  })

  test("a fence with another tag for TypeScript, and one that is not closed, are errors", () => {
    expect(() => fencesOf("a.md", "```typescript\n1\n```")).toThrow("write `ts`")
    expect(() => fencesOf("a.md", "```ts\n1\n")).toThrow("not closed")
  })
})
