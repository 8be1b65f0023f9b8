import { CancelReason, currentReason } from "@curfew/reason"
import { type CancelCell, CurrentCell } from "@curfew/reason/CancelCell"
import { describe, expect, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { exitOf, receiver, recorder, started } from "../../../test/support/recorder.ts"
import { CancelScope, failAfter, Instant, moveOnAfter, TaskScope } from "../src/index.ts"

const one = CancelReason.Requested({ message: "one" })
const two = CancelReason.Superseded()
const cancelledBy = (reason: CancelReason) => Exit.succeed({ _tag: "Cancelled", reason })

/** A body that has started, its scope, and the fiber that waits in `run`. */
const running = <A, E>(body: (scope: CancelScope.CancelScope) => Effect.Effect<A, E>) =>
  Effect.gen(function* () {
    const given = yield* Deferred.make<CancelScope.CancelScope>()
    const fiber = yield* started(
      CancelScope.run((scope) => Effect.andThen(Deferred.succeed(given, scope), body(scope)))
    )
    return { fiber, scope: yield* Deferred.await(given) }
  })

describe("L1: cancelling is idempotent and the first reason wins", () => {
  it.effect("L1: only the first cancel is told true, and its reason stays everywhere", () =>
    Effect.gen(function* () {
      const seen: Array<unknown> = []
      const { fiber, scope } = yield* running(() =>
        Effect.onExit(Effect.never, () => Effect.map(currentReason, (reason) => seen.push(reason)))
      )
      const { signal } = scope
      expect(yield* scope.cancel(one)).toBe(true)
      expect(yield* scope.cancel(two)).toBe(false)
      yield* scope.cancelAndWait(two)
      expect(yield* Fiber.await(fiber)).toEqual(cancelledBy(one))
      expect(seen).toEqual([Option.some(one)])
      expect(signal.reason).toBe(one)
      expect(yield* scope.awaitCancelled).toBe(one)
      expect(yield* scope.cancel(two)).toBe(false)
    })
  )

  it.effect("L1: without a reason it is Requested", () =>
    Effect.gen(function* () {
      const { fiber, scope } = yield* running(() => Effect.never)
      yield* scope.cancel()
      expect(yield* Fiber.join(fiber)).toMatchObject({ _tag: "Cancelled", reason: { _tag: "Requested" } })
    })
  )

  it.effect("L1: a finalizer that cancels again, and waits for that, changes nothing", () =>
    Effect.gen(function* () {
      const told: Array<unknown> = []
      const { fiber, scope } = yield* running((own) =>
        Effect.onExit(Effect.never, () =>
          Effect.gen(function* () {
            told.push(yield* own.cancel(two))
            told.push(yield* own.cancelAndWait(two))
          })
        )
      )
      expect(yield* scope.cancel(one)).toBe(true)
      expect(yield* Fiber.await(fiber)).toEqual(cancelledBy(one))
      expect(told).toEqual([false, undefined])
    })
  )
})

describe("the quartet of run", () => {
  it.effect("cancelled before the start, by the waiter's own cancel: the body does not start", () =>
    Effect.gen(function* () {
      let ran = false
      const exit = yield* exitOf(
        CancelScope.run((outer) =>
          Effect.uninterruptible(
            Effect.andThen(
              outer.cancel(one),
              Effect.interruptible(
                CancelScope.run(() =>
                  Effect.sync(() => {
                    ran = true
                  })
                )
              )
            )
          )
        )
      )
      expect(exit).toEqual(cancelledBy(one))
      expect(ran).toBe(false)
    })
  )

  it.effect("cancelled during: the finalizers end before run returns", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const { events, add } = recorder()
      const { fiber, scope } = yield* running(() =>
        Effect.onExit(Effect.never, () => Effect.andThen(Deferred.await(gate), add("closed")))
      )
      yield* scope.cancel(one)
      expect(fiber.pollUnsafe()).toBeUndefined()
      yield* Deferred.succeed(gate, undefined)
      expect(yield* Fiber.await(fiber)).toEqual(cancelledBy(one))
      expect(events).toEqual(["closed"])
    })
  )

  it.effect("cancelled after: the outcome stands and the cancel reaches nothing", () =>
    Effect.gen(function* () {
      const outcome = yield* CancelScope.run((scope) => Effect.succeed(scope))
      expect(outcome).toMatchObject({ _tag: "Done", cancelCalled: false })
      if (outcome._tag !== "Done") return
      yield* outcome.value.cancel(one)
      yield* outcome.value.cancelAndWait(one)
      yield* Effect.yieldNow
    })
  )

  it.effect("cancelled twice, from inside and outside: one end", () =>
    Effect.gen(function* () {
      const { events, never } = recorder()
      const { fiber, scope } = yield* running(() => never("stopped"))
      yield* Effect.all([scope.cancelAndWait(one), scope.cancelAndWait(two)], { concurrency: 2 })
      expect(yield* Fiber.await(fiber)).toEqual(cancelledBy(one))
      expect(events).toEqual(["stopped"])
    })
  )

  it.effect("cancelled from inside its own body: nothing after the cancel runs", () =>
    Effect.gen(function* () {
      const { events, add } = recorder()
      for (const stop of ["cancel", "cancelAndWait"] as const) {
        const exit = yield* exitOf(
          CancelScope.run((scope) =>
            Effect.andThen(scope[stop](one) as Effect.Effect<unknown>, add("ran on"))
          )
        )
        expect(exit).toEqual(cancelledBy(one))
      }
      expect(events).toEqual([])
    })
  )
})

describe("L5: what is cancelled already does not start", () => {
  const unstarted = (options: Parameters<typeof CancelScope.run>[1]) =>
    Effect.gen(function* () {
      let ran = false
      const outcome = yield* CancelScope.run(
        () =>
          Effect.sync(() => {
            ran = true
          }),
        options
      )
      expect(ran).toBe(false)
      return outcome
    })

  it.effect("L5: a deadline in the past, now, or infinitely past", () =>
    Effect.gen(function* () {
      for (const deadline of [
        yield* Instant.after("-1 second"),
        yield* Instant.now,
        Number.NEGATIVE_INFINITY as Instant.Instant
      ])
        expect(yield* unstarted({ deadline, name: "late" })).toMatchObject({
          _tag: "Cancelled",
          reason: { _tag: "Deadline", origin: "local", scope: "late" }
        })
    })
  )

  it.effect("L5: a signal that is aborted already, with its reason", () =>
    Effect.gen(function* () {
      expect(yield* unstarted({ signal: AbortSignal.abort(two) })).toEqual({ _tag: "Cancelled", reason: two })
      expect(yield* unstarted({ signal: AbortSignal.abort(42) })).toMatchObject({
        reason: { _tag: "Unknown" }
      })
      expect(yield* unstarted({ signal: AbortSignal.abort() })).toMatchObject({ reason: { _tag: "Unknown" } })
    })
  )

  it.effect("L5: below a scope that is cancelled while its options or its clock are read", () =>
    Effect.gen(function* () {
      const clock = yield* Clock.Clock
      let cancel = () => {}
      const reading: Clock.Clock = Object.create(clock, {
        monotonicTimeNanosUnsafe: {
          value: () => {
            cancel()
            return clock.monotonicTimeNanosUnsafe()
          }
        }
      })
      const named = {
        get name() {
          cancel()
          return "named"
        }
      }
      const later = { deadline: yield* Instant.after("1 hour") }
      const inner: ReadonlyArray<(body: Effect.Effect<never>) => Effect.Effect<unknown>> = [
        (body) => CancelScope.run(() => body, named),
        (body) => moveOnAfter(body, "1 hour", named),
        (body) =>
          Effect.provideService(
            CancelScope.run(() => body, later),
            Clock.Clock,
            reading
          )
      ]
      for (const run of inner) {
        let began = false
        const body = Effect.andThen(
          Effect.sync(() => {
            began = true
          }),
          Effect.never
        )
        const outer = CancelScope.run((scope) => {
          cancel = () => void Effect.runSync(scope.cancel(two))
          return run(body)
        })
        const fiber = yield* started(outer)
        expect(fiber.pollUnsafe()).toEqual(cancelledBy(two))
        expect(began).toBe(false)
      }
    })
  )

  it.effect("L5: a signal that aborts, or cancels what is above, when it is listened to", () =>
    Effect.gen(function* () {
      const listened = (act: () => void): AbortSignal => {
        const { signal } = new AbortController()
        return Object.assign(signal, { addEventListener: () => act() })
      }
      const aborts = new AbortController()
      const fake = Object.assign(aborts.signal, {
        addEventListener: (_type: string, abort: () => void) => {
          aborts.abort(two)
          abort()
        }
      })
      const aborted = yield* started(unstarted({ signal: fake }))
      expect(aborted.pollUnsafe()).toEqual(cancelledBy(two))
      const outer = CancelScope.run((scope) =>
        unstarted({ signal: listened(() => void Effect.runSync(scope.cancel(one))) })
      )
      expect((yield* started(outer)).pollUnsafe()).toEqual(cancelledBy(one))
    })
  )

  it("L5: on the real clock too", async () => {
    const outcome = await Effect.runPromise(
      Effect.flatMap(Instant.now, (deadline) => CancelScope.run(() => Effect.succeed("ran"), { deadline }))
    )
    expect(outcome).toMatchObject({ _tag: "Cancelled", reason: { _tag: "Deadline" } })
  })
})

describe("L8: a long-lived scope", () => {
  it.effect("L8: keeps nothing of the scopes, tasks and waits that ended inside it", () =>
    Effect.gen(function* () {
      const { around } = receiver()
      const outcome = yield* CancelScope.run((scope) =>
        Effect.gen(function* () {
          const cell = yield* CurrentCell
          const stopped = yield* started(Effect.never)
          yield* Fiber.interrupt(stopped)
          for (const end of [
            Effect.void,
            Effect.fail("no"),
            Effect.die("no"),
            Fiber.join(stopped),
            Effect.never
          ]) {
            const work = end as Effect.Effect<unknown, unknown>
            for (const inside of [
              CancelScope.run(() => work),
              CancelScope.run((own) => Effect.andThen(own.cancel(), work)),
              failAfter("1 hour")(work),
              TaskScope.use((tasks: TaskScope.TaskScope) => tasks.spawn(work)),
              Effect.scoped(Effect.flatMap(TaskScope.make(), (tasks) => tasks.spawn(work))),
              Effect.scoped(CancelScope.fromSignal(new AbortController().signal)),
              scope.awaitCancelled
            ] as ReadonlyArray<Effect.Effect<unknown, unknown>>)
              yield* Fiber.interrupt(yield* started(around(inside)))
          }
          return [(cell as CancelCell).size, (cell as CancelCell).listenerCount]
        })
      )
      expect(outcome).toEqual({ _tag: "Done", value: [0, 0], cancelCalled: false })
    })
  )
})
