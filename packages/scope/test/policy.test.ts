/** L25 and L26: what a failing task does to the others, and who is told. */
import { CancelReason, currentReason } from "@curfew/reason"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import { exitOf, held, receiver, recorder, started } from "../../../test/support/recorder.ts"
import { runs } from "../../../test/support/seed.ts"
import { CancelScope, siblingFailures, TaskScope } from "../src/index.ts"

const reason = CancelReason.Superseded()
type Tasks<E = string> = TaskScope.TaskScope<E>

/** A task waits for its turn and ends as it says; stopped before, its clean-up succeeds or breaks. */
interface Plan {
  readonly end: "value" | "fail" | "die" | "interrupted elsewhere"
  readonly cleanup: "fine" | "die" | "fail"
}
const plan: fc.Arbitrary<Plan> = fc.record({
  end: fc.constantFrom("value" as const, "fail" as const, "die" as const, "interrupted elsewhere" as const),
  cleanup: fc.constantFrom("fine" as const, "die" as const, "fail" as const)
})
const plans = fc.array(plan, { minLength: 1, maxLength: 6 }).chain((tasks) =>
  fc.record({
    tasks: fc.constant(tasks),
    order: fc.shuffledSubarray(
      tasks.map((_, i) => i),
      { minLength: tasks.length }
    )
  })
)

const work = (
  i: number,
  { cleanup, end }: Plan,
  turn: Deferred.Deferred<void>
): Effect.Effect<void, string> => {
  const ending =
    end === "value"
      ? Effect.void
      : end === "fail"
        ? Effect.fail(`fail ${i}`)
        : end === "die"
          ? Effect.die(`die ${i}`)
          : Effect.interrupt
  const broken =
    cleanup === "fine"
      ? Effect.void
      : cleanup === "die"
        ? Effect.die(`cleanup ${i}`)
        : Effect.fail(`cleanup ${i}`)
  return Effect.andThen(
    Effect.onInterrupt(Deferred.await(turn), () => broken as Effect.Effect<void>),
    ending
  )
}

const what = (cause: Cause.Cause<unknown>): string => {
  const squashed = Cause.squash(cause)
  return typeof squashed === "string"
    ? squashed
    : `interrupted elsewhere ${(squashed as { task: string }).task}`
}
const failing = (i: number, { end }: Plan) => (end === "value" ? undefined : `${end} ${i}`)

const play = (
  { order, tasks: planned }: { tasks: ReadonlyArray<Plan>; order: ReadonlyArray<number> },
  policy: "failFast" | "supervise"
) =>
  Effect.gen(function* () {
    const { receive, seen } = receiver()
    const turns = planned.map(() => Deferred.makeUnsafe<void>())
    const body = (tasks: Tasks) =>
      Effect.as(
        Effect.forEach(planned, (one, i) =>
          tasks.spawn(work(i, one, turns[i] as Deferred.Deferred<void>), { name: `${i}` })
        ),
        "value"
      )
    const program =
      policy === "supervise"
        ? TaskScope.use(body as (tasks: TaskScope.TaskScope) => ReturnType<typeof body>, {
            policy,
            onUnhandled: receive
          })
        : TaskScope.use(body, { policy, onUnhandled: receive })
    const fiber = yield* started(program)
    for (const i of order) yield* Deferred.succeed(turns[i] as Deferred.Deferred<void>, undefined)
    return { exit: yield* Fiber.await(fiber), told: seen.map(({ cause }) => what(cause)), seen }
  })

describe("L25: fail fast", () => {
  it.effect("L25, L21: the first failure in time comes out, the others are attached and told once each", () =>
    Effect.promise(() =>
      fc.assert(
        fc.asyncProperty(plans, async (planned) => {
          const { exit, seen, told } = await Effect.runPromise(play(planned, "failFast"))
          const first = planned.order.find((i) => planned.tasks[i]?.end !== "value")
          if (first === undefined) {
            expect(exit).toEqual(Exit.succeed("value"))
            expect(told).toEqual([])
            return
          }
          if (Exit.isSuccess(exit)) throw new Error("a failure was lost")
          expect(what(exit.cause)).toBe(failing(first, planned.tasks[first] as Plan))
          expect(exit.cause.reasons).toHaveLength(1)
          const late = planned.order
            .slice(planned.order.indexOf(first) + 1)
            .filter((i) => planned.tasks[i]?.cleanup !== "fine")
            .map((i) => `cleanup ${i}`)
            .sort()
          expect(siblingFailures(exit.cause).map(what).sort()).toEqual(late)
          expect([...told].sort()).toEqual(late)
          for (const one of seen) expect(one.origin).toBe("sibling")
        }),
        runs(100)
      )
    )
  )

  it.effect("L24: a caller that is cancelled waits for the body's clean-up, too, and goes on after it", () =>
    Effect.gen(function* () {
      const { gate, work } = held()
      const fiber = yield* started(
        TaskScope.use((tasks: Tasks<never>) =>
          Effect.andThen(tasks.spawn(Effect.never), Effect.ensuring(Effect.never, work))
        )
      )
      fiber.interruptUnsafe()
      expect(fiber.pollUnsafe()).toBeUndefined()
      yield* Deferred.succeed(gate, undefined)
      expect(fiber.pollUnsafe()?._tag).toBe("Failure")
    })
  )

  it.effect("L25: siblings and body are cancelled with SiblingFailed, which carries the failure", () =>
    Effect.gen(function* () {
      const seen: Array<unknown> = []
      const see = Effect.onExit(Effect.never, () => Effect.map(currentReason, (why) => seen.push(why)))
      const exit = yield* exitOf(
        TaskScope.use((tasks: Tasks) =>
          Effect.gen(function* () {
            yield* tasks.spawn(see)
            yield* tasks.daemon(see)
            yield* tasks.spawn(Effect.andThen(Effect.yieldNow, Effect.fail("first")))
            yield* see
          })
        )
      )
      expect(exit).toEqual(Exit.fail("first"))
      const reason = Option.some(CancelReason.SiblingFailed({ cause: Cause.fail("first") }))
      expect(seen).toEqual([reason, reason, reason])
    })
  )

  it.effect("L25: a body that fails counts like a task, and a typed failure stays catchable", () =>
    Effect.gen(function* () {
      const { around, seen } = receiver()
      const { events, never } = recorder()
      const program = TaskScope.use((tasks: Tasks) =>
        Effect.gen(function* () {
          yield* tasks.spawn(never("stopped"))
          yield* tasks.spawn(Effect.onExit(Effect.never, () => Effect.die("second")))
          return yield* Effect.fail("first")
        })
      )
      expect(yield* around(Effect.catch(program, (error) => Effect.succeed(`caught ${error}`)))).toBe(
        "caught first"
      )
      expect(events).toEqual(["stopped"])
      expect(seen.map(({ cause }) => what(cause))).toEqual(["second"])
    })
  )

  it.effect("L25: an outer cancel is a pure interrupt, and clean-up that fails meanwhile is told", () =>
    Effect.gen(function* () {
      const { around, seen } = receiver()
      const given = yield* Deferred.make<CancelScope.CancelScope>()
      const inner: Array<Exit.Exit<unknown, unknown>> = []
      const fiber = yield* started(
        around(
          CancelScope.run((scope) =>
            Effect.onExit(
              TaskScope.use((tasks: Tasks) =>
                Effect.gen(function* () {
                  for (const i of [1, 2])
                    yield* tasks.spawn(Effect.onExit(Effect.never, () => Effect.die(`broken ${i}`)))
                  yield* Deferred.succeed(given, scope)
                  yield* Effect.never
                })
              ),
              (exit) => Effect.sync(() => inner.push(exit))
            )
          )
        )
      )
      yield* (yield* Deferred.await(given)).cancel(CancelReason.Superseded())
      expect(yield* Fiber.join(fiber)).toMatchObject({ _tag: "Cancelled" })
      const [exit] = inner
      expect(exit !== undefined && Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)).toBe(true)
      expect(seen.map(({ cause }) => what(cause)).sort()).toEqual(["broken 1", "broken 2"])
    })
  )

  it.effect("L25, L17: a task that was left behind as stuck and fails then is told, once", () =>
    Effect.gen(function* () {
      const { receive, seen } = receiver()
      const { gate, work } = held<void, string>()
      const fiber = yield* started(
        TaskScope.use(
          (tasks: Tasks) => Effect.andThen(tasks.spawn(work, { name: "upload" }), tasks.cancel()),
          {
            onUnhandled: receive
          }
        )
      )
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.join(fiber)
      yield* Deferred.fail(gate, "too late")
      expect(seen).toMatchObject([{ origin: "task", name: "upload", cause: Cause.fail("too late") }])
    })
  )
})

describe("L25: the moment of a failure", () => {
  it.effect(
    "L25: siblings and body are signalled when the body of a task has failed, not when its children have ended",
    () =>
      Effect.gen(function* () {
        for (const who of ["task", "body"] as const) {
          const { add, events } = recorder()
          const { gate, work } = held()
          const failing = Effect.andThen(
            started(Effect.ensuring(Effect.never, Effect.andThen(work, add("child")))),
            Effect.fail("no")
          )
          let exit: Effect.Effect<unknown> | undefined
          const fiber = yield* started(
            TaskScope.use((tasks: Tasks) =>
              Effect.gen(function* () {
                yield* tasks.spawn(Effect.onExit(Effect.never, () => add("sibling")))
                if (who === "body") return yield* failing
                const task = yield* tasks.spawn(Effect.andThen(Effect.yieldNow, failing))
                exit = task.exit
                return yield* Effect.onExit(Effect.never, () => add("body"))
              })
            )
          )
          yield* Effect.yieldNow
          expect([...events].sort()).toEqual(who === "body" ? ["sibling"] : ["body", "sibling"])
          expect(fiber.pollUnsafe()).toBeUndefined()
          yield* Deferred.succeed(gate, undefined)
          expect(yield* Effect.flip(Fiber.join(fiber))).toBe("no")
          expect(events.at(-1)).toBe("child")
          // Its own failure is what the task ended with, and not the cancel that came of it.
          if (exit !== undefined) expect(yield* exit).toEqual(Exit.fail("no"))
        }
      })
  )

  it.effect(
    "L25: an interrupt from elsewhere that meets a task while its children clean up is its failure",
    () =>
      Effect.gen(function* () {
        const { gate, work } = held()
        const exit = yield* exitOf(
          TaskScope.use((tasks: Tasks<never>) =>
            Effect.gen(function* () {
              const task = yield* tasks.spawn(Effect.asVoid(started(Effect.ensuring(Effect.never, work))), {
                name: "mailer"
              })
              const { fiber } = task as unknown as { readonly fiber: Fiber.Fiber<unknown> }
              fiber.interruptUnsafe()
              yield* Deferred.succeed(gate, undefined)
            })
          )
        )
        expect(Exit.isFailure(exit) && Cause.squash(exit.cause)).toMatchObject({ task: "mailer" })
      })
  )

  it.effect("L25, L26: a failure is told once, whatever meets the task while its children clean up", () =>
    Effect.gen(function* () {
      for (const policy of ["failFast", "supervise"] as const)
        for (const meets of ["nothing", "cancel", "interrupt"] as const) {
          const { receive, seen } = receiver()
          const { gate, work } = held()
          const failing = Effect.andThen(started(Effect.ensuring(Effect.never, work)), Effect.fail("no"))
          const body = (tasks: Tasks) =>
            Effect.gen(function* () {
              const task = yield* tasks.spawn(failing)
              if (meets === "cancel") yield* task.cancel(reason)
              return yield* Effect.never
            })
          const fiber = yield* started(
            CancelScope.run((scope) =>
              Effect.andThen(
                started(
                  Effect.andThen(Effect.yieldNow, Effect.andThen(Effect.yieldNow, scope.cancel(reason)))
                ),
                TaskScope.use(body, { policy: policy as "failFast", onUnhandled: receive })
              )
            )
          )
          if (meets === "interrupt") fiber.interruptUnsafe()
          yield* Deferred.succeed(gate, undefined)
          const exit = yield* Fiber.await(fiber)
          const came = Exit.isFailure(exit) && Cause.squash(exit.cause) === "no" ? 1 : 0
          expect(came + seen.length, `${policy}, ${meets}`).toBe(1)
        }
    })
  )
})

describe("L26: supervise", () => {
  it.effect("L26: each failure reaches onUnhandled exactly once, and touches nobody", () =>
    Effect.promise(() =>
      fc.assert(
        fc.asyncProperty(plans, async (planned) => {
          const { exit, seen, told } = await Effect.runPromise(play(planned, "supervise"))
          expect(exit).toEqual(Exit.succeed("value"))
          const expected = planned.tasks.map((one, i) => failing(i, one)).filter((one) => one !== undefined)
          expect([...told].sort()).toEqual(expected.sort())
          for (const one of seen) expect(one.origin).toBe("task")
        }),
        runs(100)
      )
    )
  )
})
