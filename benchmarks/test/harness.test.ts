import { describe, expect, test } from "vitest"
import { Child } from "../src/harness/child.ts"
import { type Comparison, compare } from "../src/harness/compare.ts"
import { wanted } from "../src/harness/options.ts"
import type { Row } from "../src/harness/row.ts"
import { figure, table } from "../src/harness/table.ts"

const said: Array<string> = []

/** Gives these figures one after the other. */
const gives = (name: string, ...figures: ReadonlyArray<number>) => {
  let next = 0
  return {
    name,
    measure: async () => {
      said.push(name)
      return figures[next++] ?? Number.NaN
    }
  }
}

const comparison = (over: Partial<Comparison>): Comparison => ({
  row: "a row",
  unit: "ms",
  better: "lower",
  target: 1,
  rounds: 3,
  ours: gives("ours", 1, 2, 4),
  peers: [gives("peer", 3, 2, 4)],
  ...over
})

describe("a comparison", () => {
  test("takes the ratio within each round, and the median of those", async () => {
    const [row] = await compare(comparison({}))
    expect(row).toEqual({
      row: "a row",
      ours: 2,
      peer: 3,
      peerName: "peer",
      unit: "ms",
      ratio: 1,
      range: [1, 3],
      target: 1,
      rounds: 3
    })
  })

  test("turns the ratio round where more is better", async () => {
    const [row] = await compare(comparison({ better: "higher" }))
    expect(row?.ratio).toBe(1)
    expect(row?.range).toEqual([1 / 3, 1])
  })

  test("gives every peer a row, with a target and a note of its own", async () => {
    const rows = await compare(
      comparison({
        note: "of all",
        peers: [
          gives("one", 1, 1, 1),
          { ...gives("two", 2, 2, 2), target: 0.5, note: (ours, peer) => `${ours} and ${peer}` }
        ]
      })
    )
    expect(rows.map(({ note, peerName, target }) => [peerName, target, note])).toEqual([
      ["one", 1, "of all"],
      ["two", 0.5, "2 and 2"]
    ])
  })

  test("lets somebody else go first in each round", async () => {
    said.length = 0
    await compare(comparison({ peers: [gives("one", 1, 1, 1), gives("two", 1, 1, 1)] }))
    expect(said.join(" ")).toBe("ours one two one two ours two ours one")
  })

  test("takes several turns a round where it is asked to, and their rate together", async () => {
    said.length = 0
    const [row] = await compare(
      comparison({
        better: "higher",
        rounds: 1,
        turns: 2,
        ours: gives("ours", 2, 6),
        peers: [gives("peer", 1, 1)]
      })
    )
    expect(said.join(" ")).toBe("ours peer peer ours")
    expect(row?.ours).toBeCloseTo(3, 9)
    expect(row?.ratio).toBeCloseTo(3, 9)
    const [times] = await compare(
      comparison({ rounds: 1, turns: 2, ours: gives("ours", 2, 6), peers: [gives("peer", 1, 1)] })
    )
    expect(times?.ours).toBe(4)
  })

  test("does not count what only warms up", async () => {
    const [row] = await compare(comparison({ rounds: 2, warmups: 1 }))
    expect(row?.range).toEqual([1, 1])
  })

  test("fails with a measurement that fails, and with a figure that is none", async () => {
    const wrong = { name: "peer", measure: () => Promise.reject(new Error("a wrong result")) }
    await expect(compare(comparison({ peers: [wrong] }))).rejects.toThrow("a wrong result")
    await expect(compare(comparison({ peers: [gives("peer", 0)] }))).rejects.toThrow("peer measured 0")
    await expect(compare(comparison({ rounds: 0 }))).rejects.toThrow("0 rounds")
  })
})

describe("a table", () => {
  const row: Row = {
    row: "spawn",
    ours: 1.234,
    peer: 12_345,
    peerName: "raw",
    unit: "µs",
    ratio: 0.5,
    range: [0.1, 0.9],
    target: 0.5,
    rounds: 5
  }

  test("has a column each, the mark of what is reached, and notes below", () => {
    const text = table([row, { ...row, row: "a longer name", ratio: 0.49, note: "as low as it gets" }])
    expect(text.split("\n")).toEqual([
      "   row            ours    peer  unit  compared with  ratio  range          at least  rounds",
      "✓  spawn          1.23  12,345  µs    raw            0.500  0.100 – 0.900     0.500       5",
      "✗  a longer name  1.23  12,345  µs    raw            0.490  0.100 – 0.900     0.500       5",
      "     as low as it gets"
    ])
  })

  test("writes three digits", () => {
    expect([0, 0.00123, 0.0123, 1.234, 12.34, 123.4, 12_345].map(figure)).toEqual([
      "0.000",
      "0.0012",
      "0.012",
      "1.23",
      "12.3",
      "123",
      "12,345"
    ])
  })
})

test("a row is wanted by a part of its name, whatever the case", () => {
  expect(wanted({}, "Spawn and join")).toBe(true)
  expect(wanted({ only: "spawn" }, "Spawn and join")).toBe(true)
  expect(wanted({ only: "guard" }, "Spawn and join")).toBe(false)
})

describe("a child", () => {
  const file = new URL("./support/countingEnd.ts", import.meta.url)

  test("answers, says its processor time and its memory, and is awaited", async () => {
    const child = await Child.start(file)
    expect(await child.ask("add", 2)).toBe(2)
    expect(await child.ask("add", 3)).toBe(5)
    expect(await child.cpu()).toBeGreaterThan(0)
    expect((await child.memory()).heapUsed).toBeGreaterThan(0)
    await child.stop()
    expect(() => process.kill(child.pid, 0)).toThrow("ESRCH")
    await expect(child.ask("add", 1)).rejects.toThrow("ended with code 0")
  })

  test("hands on what fails in it, also that it does not know a question", async () => {
    await using child = await Child.start(file)
    await expect(child.ask("fail")).rejects.toThrow("as it was asked to")
    await expect(child.ask("sing")).rejects.toThrow(`there is no handler "sing"`)
  })

  test("fails the question during which it ends", async () => {
    await using child = await Child.start(file)
    await expect(child.ask("exit")).rejects.toThrow("support/countingEnd.ts ended with code 3")
  })
})
