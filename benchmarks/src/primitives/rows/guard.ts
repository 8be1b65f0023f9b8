import { checkpoint, guard, onCancel } from "@curfew/guard"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Effection from "effection"
import { effects, operations } from "../batches.ts"
import { least, library, ours, type Primitive, raw } from "../primitive.ts"
import { bodies, isResult, result } from "./work.ts"

const cleanup = Effect.sync(() => {
  throw new Error("A wrong result: nothing was cancelled.")
})

const [, atOnce] = bodies[0] as (typeof bodies)[number]

const guarded = Effect.addFinalizer((exit) => (Exit.hasInterrupts(exit) ? cleanup : Effect.void))

/** What `disarm` is in raw Effect: a flag that the finalizer looks at. */
const disarmable = Effect.suspend(() => {
  let armed = true
  return Effect.as(
    Effect.addFinalizer((exit) => (armed && Exit.hasInterrupts(exit) ? cleanup : Effect.void)),
    {
      disarm: Effect.sync(() => {
        const was = armed
        armed = false
        return was
      })
    }
  )
})

/**
 * The least that keeps what a guard keeps: it can leave its `Scope`, and its clean-up runs once, under a limit, has its failure
 * reported, and knows the reason that an interrupt carries.
 */
const leastGuard = (cleanUp: (reason: unknown) => Effect.Effect<unknown>) =>
  Effect.flatMap(Effect.scope, (scope) =>
    Effect.flatMap(Scope.fork(scope), (own) => {
      let armed = true
      const take = () => {
        const was = armed
        armed = false
        return was
      }
      const finalizer = (exit: Exit.Exit<unknown, unknown>) =>
        exit._tag === "Failure" && Exit.hasInterrupts(exit) && take()
          ? Effect.catchCause(
              Effect.timeoutOption(
                Effect.suspend(() => cleanUp(exit.cause.reasons[0]?.annotations)),
                "10 seconds"
              ),
              (cause) => Effect.logError("A clean-up failed.", cause)
            )
          : Effect.void
      return Effect.as(Scope.addFinalizerExit(own, finalizer), {
        disarm: Effect.suspend(() =>
          take() ? Effect.as(Scope.close(own, Exit.void), true) : Effect.succeed(false)
        )
      })
    })
  )

let last = 0

export const rows: ReadonlyArray<Primitive> = [
  ...bodies.map(
    ([name, work]): Primitive => ({
      row: `guard: onCancel, ${name}`,
      ours: ours(() => effects(() => onCancel(work, () => cleanup), isResult)),
      peers: [
        raw("onInterrupt", () => effects(() => Effect.onInterrupt(work, () => cleanup), isResult)),
        ...(name === "ends at once"
          ? [
              library("effection: scoped, ensure", () =>
                operations(
                  () =>
                    Effection.scoped(function* () {
                      let ended = false
                      yield* Effection.ensure(() => {
                        if (!ended) throw new Error("A wrong result: nothing was cancelled.")
                      })
                      ended = true
                      return result
                    }),
                  isResult
                )
              )
            ]
          : [])
      ]
    })
  ),
  {
    row: "guard: guard",
    ours: ours(() =>
      effects(
        () =>
          Effect.scoped(
            Effect.andThen(
              guard(() => cleanup),
              atOnce
            )
          ),
        isResult
      )
    ),
    peers: [
      raw("scoped, addFinalizer", () =>
        effects(() => Effect.scoped(Effect.andThen(guarded, atOnce)), isResult)
      )
    ],
    limit: least("a Scope to leave by, clean-up that runs once, under a limit and with a report", () =>
      effects(
        () =>
          Effect.scoped(
            Effect.andThen(
              leastGuard(() => cleanup),
              atOnce
            )
          ),
        isResult
      )
    )
  },
  {
    row: "guard: guard, disarmed",
    ours: ours(() =>
      effects(
        () =>
          Effect.scoped(
            Effect.flatMap(
              guard(() => cleanup),
              ({ disarm }) => disarm
            )
          ),
        (was) => was
      )
    ),
    peers: [
      raw("scoped, addFinalizer, a flag", () =>
        effects(
          () => Effect.scoped(Effect.flatMap(disarmable, ({ disarm }) => disarm)),
          (was) => was
        )
      )
    ]
  },
  {
    row: "guard: checkpoint",
    ours: ours(() =>
      effects(
        () => checkpoint,
        (value) => value === undefined
      )
    ),
    peers: [
      raw("a look at the clock, and yieldNow every 5 ms", () => {
        const look = Clock.clockWith((clock) => {
          const now = Number(clock.monotonicTimeNanosUnsafe()) / 1e6
          if (now - last < 5) return Effect.void
          last = now
          return Effect.yieldNow
        })
        return effects(
          () => look,
          (value) => value === undefined
        )
      })
    ]
  }
]
