/** Work that ends at once takes a short way; here it leaves that way in the middle, or is looked at while it is on it. */
import { CancelReason, fromCause, outerReason } from "@curfew/reason"
import { CancelCell, rootsUnsafe } from "@curfew/reason/CancelCell"
import { bounded, CancelScope, failAfter, Instant, inspect, moveOnAfter, TaskScope } from "@curfew/scope"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { TestClock } from "effect/testing"
import { exitOf, receiver, started } from "../../../test/support/recorder.ts"

/** The names of what is alive, in the order of the tree. */
const names = Effect.map(inspect, ({ roots }) => {
  const seen: Array<string | undefined> = []
  const open = [...roots]
  for (let node = open.pop(); node !== undefined; node = open.pop()) {
    seen.push(node.name)
    open.push(...node.children)
  }
  return seen.filter((name) => name !== undefined)
})

/** A clock that counts how often somebody sleeps by it. */
const counting = Effect.map(Clock.Clock, (clock) => {
  const slept: Array<number> = []
  const sleep = (duration: Duration.Duration) => {
    slept.push(Duration.toMillis(duration))
    return clock.sleep(duration)
  }
  return { slept, clock: Object.assign(Object.create(clock), { sleep }) as Clock.Clock }
})

describe("work that ends at once", () => {
  it.effect("L47: stands in the live tree while it runs, with its deadline, and not after that", () =>
    Effect.gen(function* () {
      const before = yield* names
      const deadline = yield* Instant.after("1 minute")
      const seen = yield* CancelScope.run(
        (scope) =>
          TaskScope.use(
            (tasks: TaskScope.TaskScope<never>) =>
              Effect.gen(function* () {
                const task = yield* tasks.spawn(Effect.zip(names, scope.deadline), { name: "task" })
                return yield* task.join
              }),
            { name: "tasks" }
          ),
        { name: "scope", deadline }
      )
      expect(seen).toMatchObject({ _tag: "Done", value: [expect.anything(), Option.some(deadline)] })
      const [inside] = seen._tag === "Done" ? seen.value : [[]]
      expect(inside).toEqual(expect.arrayContaining(["scope", "tasks", "task"]))
      expect(yield* names).toEqual(before)
    })
  )

  it.effect("L8: arms no timer, and one as soon as it waits", () =>
    Effect.gen(function* () {
      const { clock, slept } = yield* counting
      const limited = <A>(work: Effect.Effect<A>) =>
        Effect.provideService(moveOnAfter(failAfter(work, "2 seconds"), "1 second"), Clock.Clock, clock)
      expect(yield* limited(Effect.sync(() => 1))).toEqual(Option.some(1))
      expect(Exit.hasDies(yield* exitOf(limited(Effect.die("broken"))))).toBe(true)
      expect(slept).toEqual([])
      const gate = yield* Deferred.make<number>()
      const waiting = yield* started(limited(Deferred.await(gate)))
      // The outer one first.
      expect(slept).toEqual([1000, 2000])
      yield* Deferred.succeed(gate, 2)
      expect(yield* Fiber.join(waiting)).toEqual(Option.some(2))
    })
  )

  it.effect("a deadline that is moved in its first steps is the one that counts", () =>
    Effect.gen(function* () {
      const { clock, slept } = yield* counting
      const deadline = yield* Instant.after("1 second")
      const later = yield* Instant.after("3 seconds")
      const running = yield* started(
        Effect.provideService(
          CancelScope.run((scope) => Effect.andThen(scope.setDeadline(later), Effect.never), { deadline }),
          Clock.Clock,
          clock
        )
      )
      expect(slept).toEqual([3000])
      yield* TestClock.adjust("2 seconds")
      expect(running.pollUnsafe()).toBeUndefined()
      yield* TestClock.adjust("1 second")
      expect(yield* Fiber.join(running)).toMatchObject({ _tag: "Cancelled", reason: { _tag: "Deadline" } })
    })
  )

  it.effect("L3, L4: is cancelled by itself at its next operation, and not after its last one", () =>
    Effect.gen(function* () {
      const reason = CancelReason.Superseded()
      const goesOn = CancelScope.run((scope) => Effect.andThen(scope.cancel(reason), Effect.succeed(1)))
      expect(yield* goesOn).toEqual({ _tag: "Cancelled", reason })
      const tasks = yield* TaskScope.make()
      const inside: Array<Option.Option<CancelReason>> = []
      const task = yield* tasks.spawn(
        Effect.onExit(Effect.andThen(tasks.cancel(reason), Effect.succeed(1)), () =>
          Effect.map(outerReason, (why) => inside.push(why))
        )
      )
      const exit = yield* task.exit
      expect(exit._tag === "Failure" && fromCause(exit.cause)).toEqual(Option.some(reason))
      expect(inside).toEqual([Option.some(reason)])
      expect(yield* tasks.size).toBe(0)
    })
  )

  it.effect("L5, L27: does not begin below what is cancelled, and says so", () =>
    Effect.gen(function* () {
      const reason = CancelReason.Superseded()
      let ran = 0
      const work = Effect.sync(() => ran++)
      const outcome = yield* CancelScope.run((scope) =>
        Effect.andThen(
          scope.cancel(reason),
          Effect.uninterruptible(Effect.interruptible(CancelScope.run(() => work)))
        )
      )
      expect(outcome).toEqual({ _tag: "Cancelled", reason })
      const cell = new CancelCell("scope", {})
      cell.cancel(reason)
      cell.unlink()
      expect(ran).toBe(0)
    })
  )

  it.effect("L26: tells its failure when its body ends and not when its children have ended", () =>
    Effect.gen(function* () {
      const { around, seen } = receiver()
      const gate = yield* Deferred.make<void>()
      yield* around(
        Effect.gen(function* () {
          const tasks = yield* TaskScope.make()
          const child = Effect.onExit(Effect.never, () => Deferred.await(gate))
          const task = yield* tasks.spawn(
            Effect.andThen(
              Effect.forkChild(child, { startImmediately: true }),
              Effect.fail("no route")
            ) as Effect.Effect<never>
          )
          expect(seen.map(({ cause }) => Cause.squash(cause))).toEqual(["no route"])
          expect(yield* tasks.size).toBe(1)
          yield* Deferred.succeed(gate, undefined)
          expect((yield* task.exit)._tag).toBe("Failure")
          expect(seen.length).toBe(1)
        })
      )
    })
  )

  it.effect("L18: clean-up that ends at once leaves nothing behind, and what it does it does masked", () =>
    Effect.gen(function* () {
      const before = rootsUnsafe().length
      const { clock, slept } = yield* counting
      const clean = <A, E>(work: Effect.Effect<A, E>) =>
        Effect.provideService(bounded(work), Clock.Clock, clock)
      expect(yield* clean(Effect.sync(() => 1))).toEqual(Option.some(1))
      expect(yield* exitOf(clean(Effect.fail("broken")))).toEqual(Exit.fail("broken"))
      const interrupting = Effect.withFiber((own) =>
        Effect.andThen(
          Effect.sync(() => own.interruptUnsafe()),
          Effect.succeed("to its end")
        )
      )
      expect(yield* clean(interrupting)).toEqual(Option.some("to its end"))
      expect([slept, rootsUnsafe().length]).toEqual([[], before])
    })
  )
})
