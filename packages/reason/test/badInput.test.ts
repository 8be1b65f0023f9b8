import { awaitCancellation, CancelReason, fromAbort, describe as say } from "@curfew/reason"
import { CancelCell, CurrentCell } from "@curfew/reason/CancelCell"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { abortReasons } from "../../../test/support/badInput.ts"

describe("fromAbort", () => {
  for (const [what, reason, expected] of abortReasons) {
    it(`gives a reason for ${what}, and throws nothing`, () => {
      const read = fromAbort(reason)
      expect(read._tag === "Requested" ? `Requested: ${read.message}` : read._tag).toBe(expected)
      expect(typeof say(read)).toBe("string")
    })
  }

  it("leaves a reason as it is, down to the object", () => {
    const reason = CancelReason.Superseded()
    expect(fromAbort(reason)).toBe(reason)
  })
})

describe("ten thousand who wait for one cancel", () => {
  it.effect("all resume, and one that leaves takes nothing but its own ear", () =>
    Effect.gen(function* () {
      const cell = new CancelCell("scope", {})
      const waits = yield* Effect.forEach(Array.from({ length: 10_000 }), () =>
        Effect.forkChild(Effect.provideService(awaitCancellation, CurrentCell, cell), {
          startImmediately: true
        })
      )
      yield* Fiber.interrupt(waits[5000] as Fiber.Fiber<CancelReason>)
      cell.cancel(CancelReason.Superseded())
      const exits = yield* Effect.forEach(waits, (wait) => Fiber.await(wait))
      expect(exits.filter(Exit.isSuccess)).toHaveLength(9_999)
      cell.unlink()
    })
  )
})

describe("a listener of a cancel", () => {
  it("that cancels again, the same cell or one below, changes nothing and is called once", () => {
    const cell = new CancelCell("scope", {})
    const below = new CancelCell("task", { parent: cell })
    const log: Array<string> = []
    cell.listen((reason) => {
      log.push(
        `${reason._tag} ${cell.cancel(CancelReason.Unknown())} ${below.cancel(CancelReason.Unknown())}`
      )
    })
    expect(cell.cancel(CancelReason.Superseded())).toBe(true)
    expect(log).toEqual(["Superseded false false"])
    expect(below.reason).toEqual(CancelReason.Superseded())
    below.unlink()
    cell.unlink()
  })
})
