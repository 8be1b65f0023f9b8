import { failureOf, Owner, siblingFailures } from "@curfew/scope"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { describe, expect, test } from "vitest"
import { type SweepOptions, sweep, sweepAll } from "../../../test/support/sweep.ts"
import { hearing } from "../../shield/test/support/unhandled.ts"
import { gather } from "../src/index.ts"

/** The failures that were raised in a run, and who got them. */
const ledger = () => {
  const heard = hearing()
  const raised: Array<string> = []
  let running = 0
  let runningAtEnd = 0
  let gathered: Exit.Exit<unknown, unknown> | undefined
  const raise = (effect: Effect.Effect<never, string>, name: string) =>
    Effect.uninterruptible(
      Effect.suspend(() => {
        raised.push(name)
        return effect
      })
    )
  return {
    failing: (name: string) => raise(Effect.fail(name), name),
    /** Waits to be cancelled, and then its clean-up dies. */
    dying: (name: string) =>
      Effect.ensuring(Effect.never, raise(Effect.die(name), name) as Effect.Effect<never>),
    counted: <A, E, R>(item: Effect.Effect<A, E, R>) =>
      Effect.acquireUseRelease(
        Effect.sync(() => {
          running++
        }),
        () => item,
        () =>
          Effect.sync(() => {
            running--
          })
      ),
    around: <A, E, R>(whole: Effect.Effect<A, E, R>) =>
      Effect.suspend(() => {
        heard.all.splice(0)
        raised.splice(0)
        gathered = undefined
        return heard.by(
          Effect.onExit(whole, (exit) =>
            Effect.sync(() => {
              gathered = exit
              runningAtEnd = running
            })
          )
        )
      }),
    balanced: () => {
      expect(runningAtEnd, "items that run when the gather ends").toBe(0)
      const failure =
        gathered !== undefined && Exit.isFailure(gathered) ? failureOf(gathered.cause) : undefined
      const given = failure === undefined ? [] : [Cause.squash(failure)]
      const got = [...heard.causes(), ...given].filter((cause) => typeof cause === "string")
      expect([...got].sort(), "what was raised and who got it").toEqual([...raised].sort())
      const attached = failure === undefined ? [] : siblingFailures(failure).map(Cause.squash)
      const before = attached.filter((cause) => !raised.includes(String(cause)))
      expect(before, "siblings that never failed").toEqual([])
    }
  }
}

const pauses = Effect.andThen(Effect.yieldNow, Effect.yieldNow)

const programs = {
  "items with results": () => {
    const book = ledger()
    return {
      program: book.around(
        gather([
          book.counted(Effect.as(pauses, 1)),
          book.counted(Effect.succeed("a")),
          undefined,
          book.counted(Effect.as(Effect.sleep("1 minute"), true))
        ])
      ),
      after: book.balanced
    }
  },
  "items one after the other": () => {
    const book = ledger()
    return {
      program: book.around(
        gather([book.counted(pauses), book.counted(Effect.void), book.counted(pauses)], { concurrency: 1 })
      ),
      after: book.balanced
    }
  },
  "a late failure, and siblings whose clean-up dies": () => {
    const book = ledger()
    const items = [
      book.counted(book.dying("one")),
      book.counted(Effect.andThen(pauses, book.failing("first"))),
      book.counted(book.dying("two"))
    ]
    return {
      program: Effect.catch(book.around(gather(items)), (error) => Effect.succeed(error)),
      answer: "first",
      after: book.balanced
    }
  },
  "a failure at once, and a sibling whose clean-up dies": () => {
    const book = ledger()
    const items = [book.counted(book.dying("one")), book.failing("first")]
    return {
      program: Effect.catch(book.around(gather(items)), (error) => Effect.succeed(error)),
      answer: "first",
      after: book.balanced
    }
  },
  "a gather inside a gather": () => {
    const book = ledger()
    const inner = gather([book.counted(book.dying("one")), Effect.andThen(pauses, book.failing("first"))])
    return {
      program: Effect.catch(book.around(gather({ inner, other: book.counted(Effect.never) })), (error) =>
        Effect.succeed(error)
      ),
      answer: "first",
      after: book.balanced
    }
  }
} as const

describe.each(Object.entries(programs))(
  "L21, L22, L23: cancelled at every step, %s",
  { timeout: 60_000 },
  (_, makeProgram) => {
    test("every item ends, and every failure is given or reported, exactly once", async () => {
      const steps = await sweepAll(makeProgram as () => { readonly program: Effect.Effect<unknown> })
      expect(Math.min(...steps)).toBeGreaterThan(10)
    })
  }
)

describe("L23: cancelled at every step, a gather that lets the others finish", { timeout: 60_000 }, () => {
  const options: ReadonlyArray<SweepOptions> = [{}, { cancel: "scope" }, { twice: true }, { fresh: false }]

  test.each(options)("every failure is given or reported, exactly once: %o", async (option) => {
    const steps = await sweep(() => {
      const heard = hearing()
      const raised: Array<string> = []
      let given: ReadonlyArray<unknown> = []
      const failing = (name: string) =>
        Effect.uninterruptible(
          Effect.suspend(() => {
            raised.push(name)
            return Effect.fail(name)
          })
        )
      const items = [
        Effect.andThen(pauses, failing("second")),
        failing("first"),
        Effect.andThen(Effect.sleep("1 second"), failing("third"))
      ]
      const program = Effect.suspend(() => {
        heard.all.splice(0)
        raised.splice(0)
        given = []
        return gather([...items].reverse().concat(items.slice(1, 2)), { onFailure: "letFinish" }).pipe(
          Effect.onExit((exit) =>
            Effect.sync(() => {
              const failure = Exit.isFailure(exit) ? failureOf(exit.cause) : undefined
              given = failure === undefined ? [] : [Cause.squash(failure)]
            })
          ),
          Effect.catch((error) => Effect.succeed(error)),
          Effect.provide(Owner.layer()),
          heard.by
        )
      })
      return {
        program,
        answer: "first",
        after: () => expect([...heard.causes(), ...given].sort(), "who got what").toEqual([...raised].sort())
      }
    }, option)
    expect(steps).toBeGreaterThan(10)
  })
})
