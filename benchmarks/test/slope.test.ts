import { describe, expect, test } from "vitest"
import { slopeOf } from "../src/memory/slope.ts"

describe("the slope of a line through points", () => {
  test("is that of the line, with an interval of nothing, where they lie on one", () => {
    const { half, slope } = slopeOf([0, 1, 2, 3, 4].map((x) => [x, 7 + 3 * x]))
    expect(slope).toBeCloseTo(3, 10)
    expect(half).toBeCloseTo(0, 10)
  })

  test("has the interval of the textbooks", () => {
    // x = 1 to 5, y = 2, 4, 5, 4, 5: slope 0.6, standard error 0.2828, t with three degrees 3.182.
    const { half, slope } = slopeOf([2, 4, 5, 4, 5].map((y, i) => [i + 1, y]))
    expect(slope).toBeCloseTo(0.6, 10)
    expect(half).toBeCloseTo(3.182 * Math.sqrt(0.08), 3)
  })

  test("contains zero in what only swings, and does not in what grows while it swings", () => {
    const swing = (i: number) => (i % 3) * 100
    const flat = slopeOf(Array.from({ length: 60 }, (_, i) => [i, 1_000 + swing(i)]))
    expect(Math.abs(flat.slope)).toBeLessThan(flat.half)
    const leak = slopeOf(Array.from({ length: 60 }, (_, i) => [i, 1_000 + 10 * i + swing(i)]))
    expect(Math.abs(leak.slope)).toBeGreaterThan(leak.half)
  })

  test("needs three points", () => {
    expect(() =>
      slopeOf([
        [0, 0],
        [1, 1]
      ])
    ).toThrow("at least three")
  })
})
