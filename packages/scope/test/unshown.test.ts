/** What stands among the work that is shown to whoever looks for cells, and until when. */
import { CancelCell, type Unshown, unshown } from "@curfew/reason/CancelCell"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { describe, expect, test } from "vitest"
import { startUnshown } from "../src/Child.ts"

class Body implements Unshown {
  readonly cell = new CancelCell("task", {})
  before: Unshown | undefined = undefined
  fiber!: Fiber.Fiber<unknown, unknown>
  show(): void {}
  enter(given: Context.Context<never>): Context.Context<never> {
    return given
  }
  settle(): undefined {
    this.cell.unlink()
  }
}

describe("work that shows itself when somebody looks", () => {
  test("stands before the work that it begins in, and has let go of that when it waits or has ended", () => {
    const outer = new Body()
    const inner = new Body()
    const seen: Array<unknown> = []
    const look = () => seen.push(unshown.last === inner, inner.before === outer, outer.before)
    const begins = Effect.sync(() => {
      startUnshown(Context.empty(), Effect.andThen(Effect.sync(look), Effect.never), inner)
      seen.push(unshown.last === outer)
    })
    startUnshown(Context.empty(), begins, outer)
    expect(seen).toEqual([true, true, undefined, true])
    expect([unshown.last, outer.before, inner.before]).toEqual([undefined, undefined, undefined])
    inner.fiber.interruptUnsafe()
    expect(inner.cell.ended).toBe(true)
  })
})
