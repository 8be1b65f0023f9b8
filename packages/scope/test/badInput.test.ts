import { awaitCancellation, CancelReason } from "@curfew/reason"
import {
  background,
  bounded,
  CancelScope,
  CleanupBudget,
  DeadlineExceeded,
  failAfter,
  formatTree,
  Instant,
  inspect,
  type LiveNode,
  moveOnAfter,
  OnUnhandled,
  Owner,
  stuck,
  TaskScope,
  type Unhandled
} from "@curfew/scope"
import { awaitEnd } from "@curfew/scope/Child"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as fc from "fast-check"
import { vi } from "vitest"
import {
  abortReasons,
  complaintOf,
  defectOf,
  endlessDurations,
  noCounts,
  noDurations,
  overDurations,
  throwing,
  thrown
} from "../../../test/support/badInput.ts"
import { runs } from "../../../test/support/seed.ts"
import { countUnsafe } from "../src/Argument.ts"

const forked = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })

/** An open task scope with one task that never ends by itself. */
const busy = Effect.tap(TaskScope.make(), (tasks) => tasks.spawn(Effect.never))

describe("a duration that is none", () => {
  for (const [what, duration] of noDurations) {
    it.effect(`${what} is an IllegalArgument, and nothing starts`, () =>
      Effect.gen(function* () {
        let started = 0
        const work = Effect.sync(() => {
          started++
        })
        const ways: Record<string, Effect.Effect<unknown, unknown, Scope.Scope>> = {
          "the duration of the time limit": failAfter(work, duration),
          "The duration of the time limit": moveOnAfter(work, duration),
          "the duration of an instant": Effect.andThen(Instant.after(duration), work),
          "The duration of the time limit (drain)": Effect.flatMap(busy, (tasks) =>
            Effect.andThen(tasks.drain(duration), work)
          )
        }
        // Null is a default where there is one.
        if (duration !== null) {
          ways["the drain of the owner"] = Effect.provide(work, Owner.layer({ drain: duration }))
        }
        for (const [name, way] of Object.entries(ways)) {
          const complaint = complaintOf(yield* Effect.exit(way))
          const expected = `${name.charAt(0).toUpperCase()}${name.slice(1).replace(" (drain)", "")} is `
          expect(complaint).toContain(expected)
          expect(complaint).toMatch(/\. Pass a duration such as "5 seconds", or Infinity for never\.$/)
        }
        expect(started).toBe(0)
      })
    )

    it.effect(`${what} as the budget of bounded is told after the clean-up, which runs in any case`, () =>
      Effect.gen(function* () {
        let ran = 0
        const cleanup = Effect.sync(() => {
          ran++
        })
        const exit = yield* Effect.exit(bounded(cleanup, { within: duration }))
        expect(complaintOf(exit)).toContain("The budget of bounded is ")
        expect(ran).toBe(1)
      })
    )
  }

  it("the sentence shows what was passed, and little of it when there is much", () => {
    const exit = Effect.runSyncExit(Effect.scoped(Instant.after("x".repeat(10_000) as "1 second")))
    expect(String(complaintOf(exit)).length).toBeLessThan(200)
  })
})

describe("a duration that is over", () => {
  for (const [what, duration] of overDurations) {
    it.effect(`${what}: a time limit has passed and the body does not start`, () =>
      Effect.gen(function* () {
        let started = 0
        const work = Effect.sync(() => ++started)
        const failed = yield* Effect.flip(failAfter(work, duration))
        expect(failed).toBeInstanceOf(DeadlineExceeded)
        expect(failed.message).toMatch(/^The deadline has passed/)
        expect(yield* moveOnAfter(work, duration)).toEqual(Option.none())
        expect(started).toBe(0)
      })
    )

    it.effect(`${what}: an instant is not ahead, and a drain of a busy scope says false at once`, () =>
      Effect.gen(function* () {
        const now = yield* Instant.now
        expect(yield* Instant.after(duration)).toBeLessThanOrEqual(now)
        const tasks = yield* busy
        expect(yield* tasks.drain(duration)).toBe(false)
        expect(yield* (yield* TaskScope.make()).drain(duration)).toBe(true)
      })
    )

    it.effect(`${what}: clean-up that ends at once has its result, any other is left behind at once`, () =>
      Effect.gen(function* () {
        expect(yield* bounded(Effect.succeed(1), { within: duration })).toEqual(Option.some(1))
        const gate = yield* Deferred.make<void>()
        const fiber = yield* forked(bounded(Deferred.await(gate), { within: duration, name: "gate" }))
        yield* TestClock.adjust(0)
        expect(yield* Fiber.join(fiber)).toEqual(Option.none())
        expect((yield* stuck).map((record) => record.name)).toEqual(["gate"])
        yield* Deferred.succeed(gate, undefined)
        yield* Effect.yieldNow
        expect(yield* stuck).toEqual([])
      })
    )

    it.effect(
      `${what}: an owner cancels what runs without a drain, and a task scope waits for no clean-up`,
      () =>
        Effect.gen(function* () {
          const gate = yield* Deferred.make<void>()
          const layer = Owner.layer({ drain: duration })
          yield* Effect.andThen(background("mail", Effect.never), Effect.void).pipe(Effect.provide(layer))
          const body = TaskScope.use((tasks) =>
            tasks
              .spawn(Effect.uninterruptible(Deferred.await(gate)), { name: "hangs" })
              .pipe(Effect.andThen(tasks.cancel()))
          )
          const fiber = yield* forked(
            Effect.provideService(body, CleanupBudget, Duration.fromInputUnsafe(duration))
          )
          yield* TestClock.adjust(0)
          expect(Exit.isSuccess(yield* Fiber.await(fiber))).toBe(true)
          expect((yield* stuck).map((record) => record.name)).toEqual(["hangs"])
          yield* Deferred.succeed(gate, undefined)
          yield* Effect.yieldNow
          expect(yield* stuck).toEqual([])
        })
    )
  }
})

describe("a duration without an end", () => {
  for (const [what, duration] of endlessDurations) {
    it.effect(`${what}: never comes`, () =>
      Effect.gen(function* () {
        const work = Effect.as(Effect.sleep("1000 days"), "done")
        const fiber = yield* forked(
          Effect.all(
            [
              failAfter(work, duration),
              moveOnAfter(work, duration),
              bounded(work, { within: duration }),
              Effect.flatMap(TaskScope.make(), (tasks) =>
                Effect.andThen(tasks.spawn(work), tasks.drain(duration))
              )
            ],
            { concurrency: "unbounded" }
          )
        )
        yield* TestClock.adjust("1000 days")
        expect(yield* Fiber.join(fiber)).toEqual(["done", Option.some("done"), Option.some("done"), true])
        expect(yield* Instant.after(duration)).toBe(Instant.never)
      })
    )
  }
})

describe("an instant", () => {
  const run = (deadline: number) =>
    CancelScope.run(() => Effect.succeed(1), { deadline: deadline as Instant.Instant })

  it.effect(
    "that is NaN, or no number, is an IllegalArgument, as a deadline from the start or set later",
    () =>
      Effect.gen(function* () {
        for (const at of [Number.NaN, "noon" as unknown as number, null as unknown as number]) {
          expect(complaintOf(yield* Effect.exit(run(at)))).toMatch(
            /^The deadline of the scope is .*\. Pass an instant, as Instant\.after gives it, or Instant\.never\.$/
          )
          const outcome = yield* CancelScope.run((scope) =>
            Effect.gen(function* () {
              yield* scope.setDeadline(yield* Instant.after("1 second"))
              const before = yield* scope.deadline
              expect(complaintOf(yield* Effect.exit(scope.setDeadline(at as Instant.Instant)))).toContain(
                "Pass an instant"
              )
              expect(yield* scope.deadline).toEqual(before)
            })
          )
          expect(outcome._tag).toBe("Done")
        }
      })
  )

  it.effect("of minus infinity is past, of infinity never comes", () =>
    Effect.gen(function* () {
      const past = yield* run(Number.NEGATIVE_INFINITY)
      expect(past).toMatchObject({ _tag: "Cancelled", reason: { _tag: "Deadline" } })
      expect(yield* run(Number.POSITIVE_INFINITY)).toMatchObject({ _tag: "Done", value: 1 })
      const later = yield* forked(
        CancelScope.run((scope) =>
          Effect.andThen(scope.setDeadline(Number.NEGATIVE_INFINITY as Instant.Instant), Effect.never)
        )
      )
      yield* TestClock.adjust(0)
      expect(yield* Fiber.join(later)).toMatchObject({ _tag: "Cancelled", reason: { _tag: "Deadline" } })
    })
  )
})

describe("a scope that is over", () => {
  it.effect("a task scope of a closed Scope, a closed and a cancelled one take nothing, whichever way", () =>
    Effect.gen(function* () {
      const over = yield* Scope.make()
      yield* Scope.close(over, Exit.void)
      const ofClosedScope = yield* Scope.provide(TaskScope.make({ name: "late" }), over)
      const closed = yield* TaskScope.make({ name: "late" })
      yield* closed.close
      const cancelled = yield* TaskScope.make({ name: "late" })
      yield* cancelled.cancel()
      let ran = 0
      const work = Effect.sync(() => ++ran)
      for (const tasks of [ofClosedScope, closed, cancelled]) {
        const ways: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
          tasks.spawn(work),
          tasks.daemon(work),
          tasks.start(() => work)
        ]
        for (const way of ways) {
          expect(yield* Effect.flip(way)).toMatchObject({ _tag: "TaskScopeClosed", scope: "late" })
        }
        expect(yield* tasks.drain()).toBe(true)
        yield* tasks.cancel()
        yield* tasks.close
      }
      expect(ran).toBe(0)
    })
  )

  it.effect("background work under a closed owner runs attached to its caller, to its end", () =>
    Effect.gen(function* () {
      const closed = yield* TaskScope.make()
      yield* closed.close
      const task = yield* background("mail", Effect.as(Effect.yieldNow, "sent"), { owner: closed })
      expect(yield* task.status).toBe("ended")
      expect(yield* task.join).toBe("sent")
    }).pipe(Effect.provide(Owner.layer()))
  )

  it.effect("a signal in a closed Scope has no ear", () =>
    Effect.gen(function* () {
      const over = yield* Scope.make()
      yield* Scope.close(over, Exit.void)
      const controller = new AbortController()
      const scope = yield* Scope.provide(CancelScope.fromSignal(controller.signal), over)
      controller.abort()
      expect(scope.signal.aborted).toBe(false)
    })
  )

  it.effect("a cancel and a deadline after the end change nothing and cost nothing", () =>
    Effect.gen(function* () {
      let kept!: CancelScope.CancelScope
      yield* CancelScope.run((scope) => Effect.sync(() => (kept = scope)))
      yield* kept.setDeadline(yield* Instant.after("1 second"))
      yield* kept.cancelAndWait()
      yield* TestClock.adjust("1 minute")
      expect(yield* kept.awaitCancelled).toMatchObject({ _tag: "Requested" })
    })
  )
})

describe("a number that counts nothing", () => {
  it("is refused, and a whole number or infinity is taken as it is", () => {
    for (const none of noCounts)
      expect(() => countUnsafe("the limit", none, 0)).toThrow("a whole number from 0 on")
    expect(() => countUnsafe("the limit", 0, 1)).toThrow("a whole number from 1 on")
    expect([0, 3, Number.POSITIVE_INFINITY].map((count) => countUnsafe("the limit", count, 0))).toEqual([
      0,
      3,
      Number.POSITIVE_INFINITY
    ])
  })
})

describe("what throws where an effect was expected", () => {
  it.effect("is a defect of the work, whoever runs it", () =>
    Effect.gen(function* () {
      const work = Effect.sync(throwing)
      const heard: Array<Unhandled> = []
      const ways: Record<string, Effect.Effect<unknown, unknown, Scope.Scope | Owner>> = {
        "run, the thunk": CancelScope.run(throwing),
        "run, the work": CancelScope.run(() => work),
        failAfter: failAfter(work, "1 second"),
        moveOnAfter: moveOnAfter(work, "1 second"),
        bounded: bounded(work),
        "use, the thunk": TaskScope.use(throwing),
        "use, the work": TaskScope.use(() => work),
        "start, the thunk": TaskScope.use((tasks) => tasks.start(throwing)),
        "spawn, failing fast": TaskScope.use((tasks) => tasks.spawn(work)),
        "spawn, joined": Effect.flatMap(
          Effect.flatMap(TaskScope.make(), (tasks) => tasks.spawn(work)),
          (task) => task.join
        ),
        background: Effect.flatMap(background("mail", work), (task) => task.join)
      }
      for (const [name, way] of Object.entries(ways)) {
        const exit = yield* Effect.exit(
          Effect.provideService(way, OnUnhandled, (unhandled) => Effect.sync(() => heard.push(unhandled)))
        )
        expect([name, defectOf(exit)]).toEqual([name, thrown])
      }
    }).pipe(Effect.provide(Owner.layer()))
  )

  it.effect("onLate: the time-out stands, and what was thrown reaches OnUnhandled", () =>
    Effect.gen(function* () {
      const heard: Array<Unhandled> = []
      const late = Effect.uninterruptible(Effect.sleep("2 seconds"))
      const fiber = yield* forked(
        Effect.exit(failAfter(late, "1 second", { onLate: throwing })).pipe(
          Effect.provideService(OnUnhandled, (unhandled) => Effect.sync(() => heard.push(unhandled)))
        )
      )
      yield* TestClock.adjust("2 seconds")
      expect(yield* Effect.flip(Effect.flatten(Fiber.join(fiber)))).toBeInstanceOf(DeadlineExceeded)
      expect(heard.map(({ cause, origin }) => [origin, Cause.squash(cause)])).toEqual([
        ["late result", thrown]
      ])
    })
  )

  it.effect("onUnhandled: a receiver that throws, fails or never ends its own work changes nothing", () =>
    Effect.gen(function* () {
      for (const receiver of [throwing, () => Effect.die(thrown), () => Effect.interrupt]) {
        const exit = yield* Effect.exit(
          TaskScope.use(
            (tasks) =>
              Effect.andThen(
                Effect.flatMap(tasks.spawn(Effect.die("bug")), (task) => task.exit),
                Effect.succeed(1)
              ),
            { policy: "supervise", onUnhandled: receiver }
          )
        )
        expect(exit).toEqual(Exit.succeed(1))
      }
    })
  )
})

describe("a signal that aborts with", () => {
  for (const [what, reason, expected] of abortReasons) {
    it.effect(
      `${what}: before and during, the scope is cancelled with a typed reason and nothing is thrown`,
      () =>
        Effect.gen(function* () {
          const thrownOutside = vi.fn()
          process.on("uncaughtException", thrownOutside)
          yield* Effect.addFinalizer(() => Effect.sync(() => process.off("uncaughtException", thrownOutside)))
          const said = (r: CancelReason) => (r._tag === "Requested" ? `Requested: ${r.message}` : r._tag)
          // `abort(undefined)` makes an AbortError of its own; a signal of another maker may really say undefined.
          const aborted = AbortSignal.abort(reason)
          const outcome = yield* CancelScope.run(() => Effect.succeed("started"), { signal: aborted })
          expect(outcome._tag === "Cancelled" && said(outcome.reason)).toBe(expected)
          const controller = new AbortController()
          const fiber = yield* forked(CancelScope.run(() => Effect.never, { signal: controller.signal }))
          const scope = yield* CancelScope.fromSignal(controller.signal)
          controller.abort(reason)
          const later = yield* Fiber.join(fiber)
          expect(later._tag === "Cancelled" && said(later.reason)).toBe(expected)
          expect(said(yield* scope.awaitCancelled)).toBe(expected)
          yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
          expect(thrownOutside).not.toHaveBeenCalled()
        })
    )
  }
})

describe("ten thousand who wait", () => {
  const waits = (task: unknown): number => (task as { readonly waits: number }).waits
  const count = 10_000
  const many = Array.from({ length: count }, (_, i) => i)

  it.effect(
    "for one task: all resume; they are no observers of its fiber, and one that leaves moves none",
    () =>
      Effect.gen(function* () {
        const gate = yield* Deferred.make<string>()
        const tasks = yield* TaskScope.make()
        const task = yield* tasks.spawn(Deferred.await(gate))
        const { fiber } = task as unknown as { readonly fiber: Fiber.Fiber<string> }
        const observed = vi.spyOn(fiber, "addObserver")
        const removed = vi.spyOn(fiber as never as { removeObserver: () => void }, "removeObserver")
        const joins = yield* Effect.forEach(many, (i) =>
          forked<unknown, never, never>(i % 2 === 0 ? task.join : task.exit)
        )
        expect(observed).not.toHaveBeenCalled()
        expect(waits(task)).toBe(count)
        yield* Fiber.interrupt(joins[0] as Fiber.Fiber<unknown>)
        yield* Fiber.interrupt(joins[count / 2] as Fiber.Fiber<unknown>)
        expect(removed).not.toHaveBeenCalled()
        expect(waits(task)).toBe(count - 2)
        yield* Deferred.succeed(gate, "done")
        const exits = yield* Effect.forEach(joins, (join) => Fiber.await(join))
        expect(exits.filter(Exit.isSuccess)).toHaveLength(count - 2)
        expect(exits[1]).toEqual(Exit.succeed(Exit.succeed("done")))
        expect(exits[2]).toEqual(Exit.succeed("done"))
      })
  )

  it.effect("for one task: those that leave leave nothing behind, and the others stay", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const tasks = yield* TaskScope.make()
      const task = yield* tasks.spawn(Deferred.await(gate))
      const [first, second, third] = yield* Effect.all([
        forked(task.join),
        forked(task.join),
        forked(task.join)
      ])
      const seen = [waits(task)]
      for (const join of [second, first]) {
        yield* Fiber.interrupt(join)
        seen.push(waits(task))
      }
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(third)
      const other = yield* tasks.spawn(Effect.never)
      const only = yield* forked(other.join)
      seen.push(waits(other))
      yield* Fiber.interrupt(only)
      expect([...seen, waits(other), waits(task)]).toEqual([3, 2, 1, 1, 0, 0])
    })
  )

  it.effect("for one fiber: it has one observer for them, which the last one that leaves takes with it", () =>
    Effect.gen(function* () {
      const fiber = yield* forked(Effect.never)
      const observed = vi.spyOn(fiber, "addObserver")
      const removed = vi.spyOn(fiber as never as { removeObserver: () => void }, "removeObserver")
      const waiters = yield* Effect.forEach(many, () => forked(awaitEnd(fiber)))
      expect(observed).toHaveBeenCalledTimes(1)
      yield* Fiber.interrupt(waiters[count / 2] as Fiber.Fiber<void>)
      expect(removed).not.toHaveBeenCalled()
      yield* Fiber.interruptAll(waiters)
      expect(removed).toHaveBeenCalledTimes(1)
      const more = yield* Effect.forEach([1, 2], () => forked(awaitEnd(fiber)))
      yield* Fiber.interrupt(fiber)
      for (const waiter of more) yield* Fiber.join(waiter)
    })
  )

  it.effect("for one drain, while two thousand tasks end one by one", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskScope.make()
      const gates = yield* Effect.forEach(many.slice(0, 2_000), () => Deferred.make<void>())
      for (const gate of gates) yield* tasks.spawn(Deferred.await(gate))
      const drains = yield* Effect.forEach(many, () => forked(tasks.drain()))
      yield* Fiber.interrupt(drains[7] as Fiber.Fiber<boolean>)
      for (const gate of gates) yield* Deferred.succeed(gate, undefined)
      const exits = yield* Effect.forEach(drains, (drain) => Fiber.await(drain))
      expect(exits.filter((exit) => exit._tag === "Success" && exit.value)).toHaveLength(count - 1)
    })
  )

  it.effect("for one cancel, by awaitCancelled and by awaitCancellation", () =>
    Effect.gen(function* () {
      const heard: Array<string> = []
      const outcome = yield* CancelScope.run((scope) =>
        Effect.gen(function* () {
          yield* Effect.forEach(many, (i) =>
            forked(
              Effect.uninterruptible(
                Effect.map(i % 2 === 0 ? scope.awaitCancelled : awaitCancellation, (reason) =>
                  heard.push(reason._tag)
                )
              )
            )
          )
          yield* scope.cancel(CancelReason.Superseded())
          yield* Effect.never
        })
      )
      expect(outcome._tag).toBe("Cancelled")
      expect(heard).toHaveLength(count)
    })
  )
})

describe("a cancel from inside the clean-up of a cancel", () => {
  const names = ["itself", "its parent", "its sibling"] as const
  for (const whom of names) {
    it.effect(`of a scope that cancels ${whom}: each ends once, and the first reason stays`, () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const first = CancelReason.Superseded()
        const second = CancelReason.Requested({ message: "again" })
        const outer = yield* CancelScope.run((parent) =>
          Effect.gen(function* () {
            const siblings = yield* Deferred.make<CancelScope.CancelScope>()
            const sibling = yield* forked(
              CancelScope.run((scope) =>
                Effect.andThen(
                  Deferred.succeed(siblings, scope),
                  Effect.onInterrupt(Effect.never, () => Effect.sync(() => log.push("sibling")))
                )
              )
            )
            const other = yield* Deferred.await(siblings)
            const inner = yield* CancelScope.run((scope) =>
              Effect.andThen(
                Effect.onInterrupt(Effect.andThen(scope.cancel(first), Effect.never), () => {
                  const target = whom === "itself" ? scope : whom === "its parent" ? parent : other
                  return Effect.map(target.cancel(second), (was) => log.push(`inner ${was}`))
                }),
                Effect.void
              )
            )
            log.push(`inner ${inner._tag === "Cancelled" ? inner.reason._tag : inner._tag}`)
            if (whom !== "its sibling") return "went on"
            const ended = yield* Fiber.join(sibling)
            return ended._tag === "Cancelled" ? ended.reason._tag : ended._tag
          })
        )
        switch (whom) {
          case "itself":
            expect(log.slice(0, 2)).toEqual(["inner false", "inner Superseded"])
            expect(outer).toMatchObject({ _tag: "Done", value: "went on" })
            break
          case "its parent":
            expect(log).toContain("inner true")
            expect(outer).toEqual({ _tag: "Cancelled", reason: second })
            expect(log.filter((entry) => entry === "sibling")).toHaveLength(1)
            break
          case "its sibling":
            expect(log).toEqual(["sibling", "inner true", "inner Superseded"])
            expect(outer).toMatchObject({ _tag: "Done", value: "Requested" })
        }
      })
    )
  }

  it.effect("from the receiver of unhandled failures: the scope around ends cancelled", () =>
    Effect.gen(function* () {
      const heard: Array<unknown> = []
      const outcome = yield* CancelScope.run((scope) =>
        TaskScope.use(
          (tasks) =>
            Effect.andThen(
              Effect.forEach([1, 2, 3], (i) => tasks.spawn(Effect.fail(i))),
              Effect.never
            ),
          {
            policy: "supervise",
            onUnhandled: ({ cause }) => {
              heard.push(Cause.squash(cause))
              return scope.cancel(CancelReason.Superseded())
            }
          }
        )
      )
      expect(outcome).toEqual({ _tag: "Cancelled", reason: CancelReason.Superseded() })
      expect(heard).toEqual([1])
    })
  )

  it.effect("from a listener on its signal: every listener is told, once", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const outcome = yield* CancelScope.run((scope) =>
        Effect.gen(function* () {
          for (const name of ["a", "b"]) {
            scope.signal.addEventListener("abort", () => {
              log.push(`${name} ${Effect.runSync(scope.cancel())}`)
            })
          }
          yield* scope.cancel(CancelReason.Superseded())
          yield* Effect.never
        })
      )
      expect(outcome).toEqual({ _tag: "Cancelled", reason: CancelReason.Superseded() })
      expect(log).toEqual(["a false", "b false"])
    })
  )
})

const countNodes = (nodes: ReadonlyArray<LiveNode>): number =>
  nodes.reduce((sum, node) => sum + 1 + countNodes(node.children), 0)

const nasty = ["", "a\nb", "\r\n", "\u2028\u2029\u0085", "\u001b[2J", "x".repeat(100_000)]

describe("names in the live tree", () => {
  it("whatever is in them, a node is a line, and a long one is cut", () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.oneof(fc.string({ unit: "binary" }), fc.constantFrom(...nasty)), {
          minLength: 1,
          maxLength: 5
        }),
        fc.string({ unit: "binary" }),
        (names, message) =>
          Effect.runPromise(
            Effect.gen(function* () {
              const looked: Array<readonly [nodes: number, text: string]> = []
              const look = Effect.map(inspect, ({ roots }) =>
                looked.push([countNodes(roots), formatTree({ roots, stuck: [], waitingFor: [] })])
              )
              const nested = names.reduceRight<Effect.Effect<unknown>>(
                (inner, name) => CancelScope.run(() => inner, { name }),
                look
              )
              const reason = CancelReason.Requested({ message: `${message}\n${names[0]}` })
              yield* CancelScope.run((scope) =>
                Effect.uninterruptible(Effect.andThen(scope.cancel(reason), nested))
              )
              const [[nodes, text]] = looked as [[number, string]]
              const lines = text.split(/[\r\n\u0085\u2028\u2029]/)
              expect(nodes).toBeGreaterThan(names.length)
              // One line counts them all.
              expect(lines).toHaveLength(nodes + 1)
              for (const line of lines) {
                expect(line).not.toMatch(/[\p{Cc}]/u)
                expect(line.length).toBeLessThan(1500)
              }
            })
          )
      ),
      runs(100)
    ))

  it("one that breaks lines stays on the line of what a shutdown waits for", () => {
    const node: LiveNode = {
      kind: "task",
      name: "a\nb",
      state: "running",
      age: Duration.zero,
      cleaningUp: undefined,
      deadline: undefined,
      reason: undefined,
      daemon: false,
      children: []
    }
    const text = formatTree({ roots: [node], stuck: [], waitingFor: ["a\nb", "c"] })
    expect(text.split("\n")).toEqual([
      'task "a\\nb"  running  0 ms',
      "1 alive: 1 running",
      "a shutdown waits for 2: a\\nb, c"
    ])
  })
})

describe("a layer that is given nonsense", () => {
  it.effect("is not built", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(Effect.scoped(Layer.build(Owner.layer({ drain: Number.NaN }))))
      expect(complaintOf(exit)).toContain("The drain of the owner is NaN")
    })
  )
})
