import { CancelReason, fromCause, ownCancellation } from "@curfew/reason"
import { CancelScope, Owner, ownerClosedTotal, TaskScope } from "@curfew/scope"
import { type Caller, CurrentCaller } from "@curfew/scope/Caller"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Scheduler from "effect/Scheduler"
import { stopCancellation } from "../src/index.ts"
import {
  cancellable,
  cancellingItself,
  causeOf,
  forked,
  hows,
  isPureInterrupt,
  requested
} from "./support/cancelling.ts"
import { hearing } from "./support/unhandled.ts"

const withOwner = <A, E>(body: (owner: TaskScope.TaskScope) => Effect.Effect<A, E, Owner>) =>
  Effect.provide(Effect.flatMap(Owner, body), Owner.layer())

const shutdown = CancelReason.Shutdown({ phase: "force" })

describe.each(hows)("stopCancellation under a %s cancel", (how) => {
  it.effect("L10: the waiter leaves in the same turn, and the work stands in its owner until it ends", () =>
    withOwner((owner) =>
      Effect.gen(function* () {
        const gate = yield* Deferred.make<string>()
        const got: Array<Exit.Exit<string>> = []
        let interrupted = false
        const work = Effect.onInterrupt(Deferred.await(gate), () =>
          Effect.sync(() => {
            interrupted = true
          })
        )
        const running = yield* cancellable(
          how,
          stopCancellation(work, { onAbandoned: (exit) => Effect.sync(() => got.push(exit)) })
        )
        expect(yield* owner.size).toBe(1)
        yield* running.cancel
        // No turn of the dispatcher in between.
        expect(running.ended()).toBe(true)
        expect(isPureInterrupt(yield* running.exit)).toBe(true)
        expect(yield* owner.size).toBe(1)
        yield* running.cancel
        expect(got).toEqual([])
        yield* Deferred.succeed(gate, "value")
        expect(got).toEqual([Exit.succeed("value")])
        expect(yield* owner.size).toBe(0)
        expect(interrupted).toBe(false)
      })
    )
  )

  it.effect("L10: the owner waits for the receiver as well", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const gate = yield* Deferred.make<void>()
      const program = withOwner(() =>
        Effect.gen(function* () {
          const running = yield* cancellable(
            how,
            stopCancellation(Deferred.await(gate), {
              onAbandoned: () =>
                Effect.andThen(
                  Effect.yieldNow,
                  Effect.sync(() => log.push("received"))
                )
            })
          )
          yield* running.cancel
          yield* Deferred.succeed(gate, undefined)
          log.push("program")
        })
      )
      yield* program
      expect(log).toEqual(["program", "received"])
    })
  )

  it.effect("L10: by default a failure is reported once, a defect too, and a success dropped", () =>
    Effect.gen(function* () {
      const heard = hearing()
      for (const end of [Effect.fail("failure"), Effect.die("defect"), Effect.succeed(1), Effect.interrupt]) {
        yield* heard.by(
          withOwner(() =>
            Effect.gen(function* () {
              const gate = yield* Deferred.make<void>()
              const running = yield* cancellable(
                how,
                stopCancellation(Effect.andThen(Deferred.await(gate), end), { name: "upload" })
              )
              yield* running.cancel
              yield* Deferred.succeed(gate, undefined)
            })
          )
        )
      }
      expect(heard.causes()).toEqual(["failure", "defect"])
      expect(heard.all.map(({ name, origin }) => [origin, name])).toEqual([
        ["abandoned work", "upload"],
        ["abandoned work", "upload"]
      ])
    })
  )

  it.effect("L10: what the waiter was given is not reported as well", () =>
    Effect.gen(function* () {
      const heard = hearing()
      for (const pause of [Effect.void, Effect.yieldNow]) {
        yield* heard.by(
          withOwner(() => Effect.exit(stopCancellation(Effect.andThen(pause, Effect.fail("failure")))))
        )
      }
      expect(heard.all).toEqual([])
    })
  )

  it.effect("L10: an owner that is cancelled ends the abandoned work, and the receiver learns of it", () =>
    withOwner((owner) =>
      Effect.gen(function* () {
        const got: Array<Exit.Exit<never>> = []
        const running = yield* cancellable(
          how,
          stopCancellation(Effect.never, { onAbandoned: (exit) => Effect.sync(() => got.push(exit)) })
        )
        yield* running.cancel
        yield* owner.cancel(shutdown)
        expect(got).toHaveLength(1)
        expect(fromCause(causeOf(got[0] as Exit.Exit<never>))).toEqual(Option.some(shutdown))
      })
    )
  )

  it.effect("L46: with a closed owner it behaves as delay, and that is counted once", () =>
    withOwner((owner) =>
      Effect.gen(function* () {
        yield* owner.close
        const count = Effect.map(Metric.value(ownerClosedTotal), (state) => state.count)
        const before = yield* count
        const gate = yield* Deferred.make<string>()
        const got: Array<Exit.Exit<string>> = []
        const running = yield* cancellable(
          how,
          stopCancellation(Deferred.await(gate), { onAbandoned: (exit) => Effect.sync(() => got.push(exit)) })
        )
        expect(yield* owner.size).toBe(0)
        yield* running.cancel
        yield* Effect.yieldNow
        expect(running.ended()).toBe(false)
        yield* Deferred.succeed(gate, "value")
        expect(isPureInterrupt(yield* running.exit)).toBe(true)
        expect(got).toEqual([Exit.succeed("value")])
        expect((yield* count) - before).toBe(1)
      })
    )
  )

  it.effect(
    "L46: work that completed before its waiter left is received even if the owner has closed since",
    () =>
      withOwner((owner) =>
        Effect.gen(function* () {
          const got: Array<Exit.Exit<string>> = []
          const running = yield* cancellingItself(how, (cancel) =>
            stopCancellation(Effect.as(Effect.andThen(owner.close, cancel), "value"), {
              onAbandoned: (exit) => Effect.sync(() => got.push(exit))
            })
          )
          expect(isPureInterrupt(yield* running.exit)).toBe(true)
          expect(got).toEqual([Exit.succeed("value")])
        })
      )
  )
})

describe("stopCancellation and its owner", () => {
  it.effect("L46, L9: with a closed owner and no cancel it is the identity", () =>
    withOwner((owner) =>
      Effect.gen(function* () {
        yield* owner.close
        expect(yield* stopCancellation(Effect.succeed(1))).toBe(1)
        expect(yield* Effect.flip(stopCancellation(Effect.andThen(Effect.yieldNow, Effect.fail("f"))))).toBe(
          "f"
        )
      })
    )
  )

  it.effect("L13: an owner that is cancelled while the waiter waits ends it with a foreign interrupt", () =>
    withOwner((owner) =>
      Effect.gen(function* () {
        const received: Array<unknown> = []
        const fiber = yield* forked(
          Effect.flatMap(
            Effect.exit(
              stopCancellation(Effect.never, {
                onAbandoned: (exit) => Effect.sync(() => received.push(exit))
              })
            ),
            (exit) => Effect.map(ownCancellation(exit), (own) => [exit, own] as const)
          )
        )
        yield* owner.cancel(shutdown)
        const [exit, own] = yield* Fiber.join(fiber)
        expect(isPureInterrupt(exit)).toBe(true)
        expect(fromCause(causeOf(exit))).toEqual(Option.some(shutdown))
        expect(own).toEqual(Option.none())
        expect(received).toEqual([])
      })
    )
  )

  it.effect("the owner in the options answers in place of the surrounding one", () =>
    withOwner((surrounding) =>
      Effect.scoped(
        Effect.gen(function* () {
          const owner = yield* TaskScope.make({ name: "uploads" })
          const gate = yield* Deferred.make<void>()
          const fiber = yield* forked(stopCancellation(Deferred.await(gate), { owner }))
          expect([yield* owner.size, yield* surrounding.size]).toEqual([1, 0])
          yield* Deferred.succeed(gate, undefined)
          yield* Fiber.join(fiber)
        })
      )
    )
  )

  it.effect(
    "L10: shields seventy deep all leave at once, and every one of their receivers gets an exit",
    () =>
      withOwner((owner) =>
        Effect.gen(function* () {
          const gate = yield* Deferred.make<number>()
          let received = 0
          let work: Effect.Effect<number, never, Owner> = Deferred.await(gate)
          for (let i = 0; i < 70; i++) {
            const inner = work
            work = stopCancellation(inner, {
              onAbandoned: () =>
                Effect.sync(() => {
                  received++
                })
            })
          }
          const running = yield* cancellable("scope", work)
          yield* Effect.yieldNow
          yield* running.cancel
          expect(running.ended()).toBe(true)
          yield* Deferred.succeed(gate, 1)
          yield* Effect.yieldNow
          expect(received).toBe(1)
          expect(yield* owner.size).toBe(0)
        })
      )
  )

  it.effect("the gotcha: abandoned work keeps its caller's Scope, which has closed by then", () =>
    withOwner(() =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const gate = yield* Deferred.make<void>()
        const resource = Effect.acquireRelease(
          Effect.sync(() => log.push("acquired")),
          () => Effect.sync(() => log.push("released"))
        )
        const work = Effect.gen(function* () {
          yield* Deferred.await(gate)
          yield* resource
          log.push("used")
          yield* Effect.scoped(
            Effect.andThen(
              resource,
              Effect.sync(() => log.push("used"))
            )
          )
        })
        const running = yield* cancellable("scope", Effect.scoped(stopCancellation(work)))
        yield* running.cancel
        yield* Deferred.succeed(gate, undefined)
        // The caller's Scope releases at once what is acquired in it now; one of its own does not.
        expect(log).toEqual(["acquired", "released", "used", "acquired", "used", "released"])
      })
    )
  )

  it.effect("L3: a scope around it yields Cancelled for its own cancel at once", () =>
    withOwner((owner) =>
      Effect.gen(function* () {
        const outcome = yield* CancelScope.run((scope) =>
          Effect.andThen(Effect.forkChild(scope.cancel(requested)), stopCancellation(Effect.never))
        )
        expect(outcome).toEqual({ _tag: "Cancelled", reason: requested })
        expect(yield* owner.size).toBe(1)
        yield* owner.cancel()
      })
    )
  )

  it.effect(
    "L10, L37: work whose waiter has left gives its exit to the receiver, and then lets go of the caller",
    () =>
      withOwner(() =>
        Effect.gen(function* () {
          const log: Array<unknown> = []
          const caller: Caller = {
            hold: () => Effect.sync(() => log.push("let go")),
            strip: (context) => context
          }
          const gate = yield* Deferred.make<string>()
          const work = stopCancellation(Deferred.await(gate), {
            onAbandoned: (exit) =>
              Effect.andThen(
                Effect.yieldNow,
                Effect.sync(() => log.push(exit))
              )
          })
          const waiter = yield* forked(Effect.provideService(work, CurrentCaller, caller))
          yield* Fiber.interrupt(waiter)
          expect(log).toEqual([])
          yield* Deferred.succeed(gate, "late")
          for (let turn = 0; turn < 10; turn++) yield* Effect.yieldNow
          expect(log).toEqual([Exit.succeed("late"), "let go"])
        })
      )
  )

  it.effect("L37: work that its owner's end caught before it began lets go of the caller's request", () =>
    withOwner((owner) =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const caller: Caller = {
          hold: (name) => {
            log.push(`held by ${name}`)
            return Effect.sync(() => log.push("let go"))
          },
          strip: (context) => context
        }
        const held: Array<Fiber.Fiber<unknown, unknown>> = []
        const work = stopCancellation(
          Effect.sync(() => log.push("worked")),
          { name: "mail" }
        )
        const waiter = yield* forked(
          Effect.withFiber((waiting) => {
            // Holds up what the waiter starts, before its first operation.
            const scheduler = new Scheduler.MixedScheduler()
            scheduler.shouldYield = (fiber) => {
              if (fiber === waiting || held.length > 0) return false
              held.push(fiber)
              return true
            }
            return Effect.provideService(work, Scheduler.Scheduler, scheduler)
          }).pipe(Effect.provideService(CurrentCaller, caller))
        )
        expect(held.length).toBe(1)
        yield* owner.cancel(shutdown)
        const exit = yield* Fiber.await(waiter)
        expect(log).toEqual(["held by mail", "let go"])
        expect(isPureInterrupt(exit)).toBe(true)
      })
    )
  )
})
