/** The order in which held exits go, by itself: a slot asks before it is taken out, and need not. */
import * as fc from "fast-check"
import { describe, expect, test } from "vitest"
import { type Kept, Retention } from "../src/internal/retention.ts"

describe("what is held for later", () => {
  test("L33: goes by its last use, whatever is added, used and removed, also what is not held", () => {
    const op = fc.record({
      op: fc.constantFrom("add", "use", "remove"),
      which: fc.integer({ min: 0, max: 5 })
    })
    fc.assert(
      fc.property(fc.array(op, { minLength: 20, maxLength: 60 }), (ops) => {
        const capacity = 3
        const retention = new Retention(capacity)
        let held: Array<number> = []
        const gone: Array<number> = []
        const slots = Array.from({ length: 6 }, (_, which): Kept => {
          const slot: Kept = {
            expired: () => false,
            evict: () => {
              gone.push(which)
              retention.remove(slot)
            }
          }
          return slot
        })
        const expected: Array<number> = []
        for (const { op, which } of ops) {
          const slot = slots[which] as Kept
          if (op === "add") {
            if (held.includes(which)) continue
            retention.add(slot, 0)
            held.push(which)
            if (held.length > capacity) expected.push(held.shift() as number)
          } else if (op === "use") {
            if (!held.includes(which)) continue
            retention.used(slot)
            held = [...held.filter((one) => one !== which), which]
          } else {
            retention.remove(slot)
            held = held.filter((one) => one !== which)
          }
          expect([gone, retention.size]).toEqual([expected, held.length])
        }
      })
    )
  })
})
