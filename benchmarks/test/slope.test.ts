import { describe, expect, test } from "vitest"
import { slopeOf } from "../src/memory/slope.ts"

/** As many samples, so many calls apart, as the benchmark takes. */
const samples = 40
const step = 12_500

type Series = (index: number) => number

/** Numbers that look like chance, the same in each run; between −1 and 1, or normal. */
const chance = (seed: number) => {
  let state = seed * 2_654_435_761
  const uniform = (): number => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 31 - 1
  }
  const normal = (): number => {
    let sum = 0
    for (let i = 0; i < 12; i++) sum += uniform() / 2
    return sum
  }
  return { uniform, normal }
}

const noise = (seed: number, bytes: number): Series => {
  const { normal } = chance(seed)
  const all = Array.from({ length: samples }, () => normal() * bytes)
  return (index) => all[index] as number
}

/** A level that is moved by chance and stays where it was moved to. */
const walk = (seed: number, bytes: number): Series => {
  const moved = noise(seed, bytes)
  const all: Array<number> = []
  for (let i = 0; i < samples; i++) all.push((all[i - 1] ?? 0) + moved(i))
  return (index) => all[index] as number
}

const heap = (series: Series, leak = 0): ReadonlyArray<readonly [number, number]> =>
  Array.from({ length: samples }, (_, i) => [i * step, 2e7 + series(i) + leak * i * step])

const grows = (series: Series, leak = 0): boolean => {
  const { half, slope } = slopeOf(heap(series, leak))
  return Math.abs(slope) > half
}

const seeds = Array.from({ length: 300 }, (_, seed) => seed + 1)
const share = (found: (seed: number) => boolean): number => seeds.filter(found).length / seeds.length

describe("the slope of a heap", () => {
  test("is that of a line, with an interval of nothing, where the samples lie on one", () => {
    const { half, slope } = slopeOf([0, 1, 2, 3, 4].map((x) => [x, 7 + 3 * x]))
    expect(slope).toBeCloseTo(3, 10)
    expect(half).toBeCloseTo(0, 10)
  })

  test("is the mean of the increments, with the error of their scatter", () => {
    // Increments 1, 3, 2: mean 2, rests −1, 1, 0 with one lag at half the weight: 2 − 1, times 3/2, over 3; t with one degree.
    const { half, slope } = slopeOf([
      [0, 0],
      [1, 1],
      [2, 4],
      [3, 6]
    ])
    expect(slope).toBeCloseTo(2, 10)
    expect(half).toBeCloseTo((12.706 * Math.sqrt(1.5)) / 3, 6)
  })

  test("is zero, at 95 %, where each sample swings by itself", () => {
    expect(share((seed) => grows(noise(seed, 10_000)))).toBeLessThan(0.07)
  })

  test("is zero, at 95 %, of a level that chance moves for good", () => {
    expect(share((seed) => grows(walk(seed, 10_000)))).toBeLessThan(0.08)
  })

  test("is zero of a level that one step moves, whenever it comes", () => {
    for (let at = 1; at < samples; at++) expect(grows((i) => (i < at ? 0 : 20_000))).toBe(false)
  })

  test("is found of half a byte a call, under any of these", () => {
    expect(share((seed) => grows(noise(seed, 10_000), 0.5))).toBe(1)
    expect(share((seed) => grows(walk(seed, 3_000), 0.5))).toBe(1)
    expect(grows((i) => (i < 20 ? 0 : 20_000), 0.5)).toBe(true)
  })

  test("is found of a hundredth of a byte a call in a heap that is as still as one without compilers", () => {
    expect(share((seed) => grows(noise(seed, 50), 0.01))).toBe(1)
  })

  test("needs four points", () => {
    expect(() =>
      slopeOf([
        [0, 0],
        [1, 1],
        [2, 2]
      ])
    ).toThrow("at least four")
  })
})
