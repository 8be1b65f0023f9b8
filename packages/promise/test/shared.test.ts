import { describe, expect, test } from "vitest"
import { delayCancellation, shared, sharedMap } from "../src/index.ts"
import { watchUnhandled } from "./support.ts"

watchUnhandled()

describe("shared work looked at from outside", () => {
  test("L33: after an invalidation the next caller starts anew, and the statistics count it", async () => {
    let runs = 0
    const token = shared(async () => ++runs, { retain: () => "1 minute" })
    expect([await token.get(), await token.get()]).toEqual([1, 1])
    expect(token.statistics).toMatchObject({ started: 1, hits: 1, retained: 1, running: 0 })
    token.invalidate()
    expect(token.statistics.retained).toBe(0)
    expect(await token.get()).toBe(2)
    expect(token.statistics).toMatchObject({ started: 2, hits: 1, retained: 1 })
  })

  test("L33: a map says so for all of its keys, and each is named as it was told to", async () => {
    const users = sharedMap(async (id: number) => ({ id }), {
      name: (id) => `user ${id}`,
      retain: () => "1 minute",
      capacity: 2
    })
    for (const id of [1, 2, 3, 3]) expect(await users.get(id)).toEqual({ id })
    expect([users.size, users.observers(3)]).toEqual([2, 0])
    expect(users.statistics).toMatchObject({ started: 3, hits: 1, retained: 2 })
    users.invalidateAll()
    expect(users.statistics.retained).toBe(0)
  })
})

test("L9: a shield without any options is the work", async () => {
  expect(await delayCancellation(() => 7)).toBe(7)
})
