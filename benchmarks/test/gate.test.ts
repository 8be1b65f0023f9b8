import { describe, expect, test } from "vitest"
import { expected, judgeRatio, judgeSizes } from "../src/gate/judge.ts"
import { prepare } from "../src/gate/measure.ts"

describe("the judge of ratios", () => {
  const published = [expected("spawn", 0.5)]

  test("has its floor at 60 % of what was published", () => {
    expect(published).toEqual([{ row: "spawn", published: 0.5, floor: 0.3 }])
  })

  test("passes a row at its floor and above, and fails it below", () => {
    expect(judgeRatio("spawn", 0.3, published).passed).toBe(true)
    expect(judgeRatio("spawn", 2, published).passed).toBe(true)
    expect(judgeRatio("spawn", 0.299, published)).toEqual({
      row: "spawn",
      passed: false,
      because: expect.stringContaining(
        "has become slower: its ratio is 0.299, the floor 0.3, and 0.5 was published"
      )
    })
  })

  test("fails a row that nothing was published for", () => {
    expect(judgeRatio("guard", 1, published).because).toContain("--write")
  })
})

describe("the judge of sizes", () => {
  const budgets = { large: 1_000, small: 100 }

  test("passes what grew by 5 %, and fails what grew by more", () => {
    expect(judgeSizes({ large: 1_050, small: 100 }, budgets).every(({ passed }) => passed)).toBe(true)
    expect(judgeSizes({ large: 1_051, small: 100 }, budgets).filter(({ passed }) => !passed)).toEqual([
      { row: "large", passed: false, because: expect.stringContaining("has grown to 1051 bytes from 1000") }
    ])
  })

  test("leaves the smallest a few bytes", () => {
    expect(judgeSizes({ large: 1_000, small: 120 }, budgets).every(({ passed }) => passed)).toBe(true)
    expect(judgeSizes({ large: 1_000, small: 121 }, budgets).every(({ passed }) => passed)).toBe(false)
  })

  test("fails an export without a budget, and a budget without an export", () => {
    expect(judgeSizes({ large: 1_000, other: 1 }, budgets).filter(({ passed }) => !passed)).toEqual([
      { row: "other", passed: false, because: expect.stringContaining("has no size budget") },
      { row: "small", passed: false, because: expect.stringContaining("is exported no more") }
    ])
  })
})

describe("a measurement of the gate", () => {
  const spin = (times: number): void => {
    let sum = 0
    for (let i = 0; i < times * 1_000; i++) sum += Math.sqrt(i)
    if (sum < 0) throw new Error("A wrong result.")
  }
  const row = { row: "spin", peerName: "spin", ours: () => spin, peer: () => spin }

  test("sees two that are alike as alike, and a planted slow-down as one", async () => {
    const alike = await (await prepare(row, false)).run(15)
    expect(alike.ratio).toBeGreaterThan(0.7)
    expect(alike.ratio).toBeLessThan(1.4)
    const planted = await (await prepare(row, true)).run(15)
    expect(planted.ratio).toBeGreaterThan(0.2)
    expect(planted.ratio).toBeLessThan(0.5)
    expect(judgeRatio("spin", planted.ratio, [expected("spin", alike.ratio)]).passed).toBe(false)
  })
})
