import { describe, expect, test } from "vitest"
import { groups } from "../src/primitives/groups.ts"

/** Each row is tried a few times, a scene with as many as make the smallest one. */
const few = 3
const scene = 1_000

const loaded = await Promise.all(
  Object.entries(groups).map(async ([name, load]) => [name, await load()] as const)
)

describe.each(loaded)("the rows of %s", (_, rows) => {
  test("have names of their own", () => {
    const names = rows.map(({ row }) => row)
    expect(new Set(names).size).toBe(names.length)
  })

  test.each(
    rows.flatMap(({ ours, peers, row, times }) =>
      [ours, ...peers].map(
        (contest) => [row, contest.name, contest.batch, times === undefined ? few : scene] as const
      )
    )
  )("%s: %s gives what is expected", async (_row, _name, make, times) => {
    const batch = await make()
    await batch(times)
    await batch(times)
  })
})
