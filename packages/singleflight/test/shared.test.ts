import { CancelReason, currentReason, outerReason } from "@curfew/reason"
import {
  background,
  CancelScope,
  CleanupBudget,
  failAfter,
  OnUnhandled,
  Owner,
  ownerClosedTotal,
  stuck,
  TaskScope,
  type Unhandled
} from "@curfew/scope"
import { Shared, SharedCancelled, SharedStuck } from "@curfew/singleflight"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import type * as Tracer from "effect/Tracer"
import * as TestClock from "effect/testing/TestClock"
import { exitOf, Lab, observing, owner, primeTestClock, sharedIn } from "./support/lab.ts"

const bye = CancelReason.Requested({ message: "bye" })

const cancelled = (exit: Exit.Exit<unknown, unknown> | undefined): CancelReason | undefined => {
  if (exit === undefined || Exit.isSuccess(exit)) return undefined
  expect(exit.cause.reasons.map((reason) => reason._tag)).toEqual(["Fail"])
  const error = Cause.squash(exit.cause)
  expect(error).toBeInstanceOf(SharedCancelled)
  return (error as SharedCancelled).reason
}

const causeOf = (fiber: Fiber.Fiber<unknown, unknown>): unknown =>
  Option.getOrUndefined(Exit.getCause(exitOf(fiber) as Exit.Exit<unknown, unknown>))

const counting = (): Metric.FiberRuntimeMetricsService & { live: number } => ({
  live: 0,
  recordFiberStart() {
    this.live++
  },
  recordFiberEnd() {
    this.live--
  }
})

describe("one run", () => {
  it.effect("L29: all observers of a run get the same exit, and the work ran once", () =>
    Effect.gen(function* () {
      for (const end of [Effect.succeed("done"), Effect.fail("no"), Effect.die("broken")]) {
        const lab = new Lab()
        const { shared } = yield* sharedIn(lab)
        const observers = yield* Effect.replicateEffect(observing(shared.get), 3)
        lab.run(0).end(end)
        const exits = observers.map(exitOf)
        expect(exits[0]).toBeDefined()
        for (const exit of exits) expect(exit).toEqual(Effect.runSyncExit(end))
        for (const observer of observers)
          expect(causeOf(observer)).toBe(causeOf(observers[0] as (typeof observers)[number]))
        expect(lab.runs).toHaveLength(1)
      }
    })
  )

  it.effect("L29: what comes after a run has ended gets a run of its own", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const { shared } = yield* sharedIn(lab)
      const first = yield* observing(shared.get)
      lab.run(0).end(Effect.succeed("one"))
      const second = yield* observing(shared.get)
      lab.run(1).end(Effect.succeed("two"))
      expect([exitOf(first), exitOf(second)]).toEqual([Exit.succeed("one"), Exit.succeed("two")])
    })
  )

  it.effect("L29: work that ends at once is given to its observer, and leaves nothing behind", () =>
    Effect.gen(function* () {
      const tasks = yield* owner
      let runs = 0
      const shared = yield* Shared.make(
        Effect.sync(() => ++runs),
        { owner: tasks }
      )
      expect(yield* shared.get).toBe(1)
      expect(yield* shared.get).toBe(2)
      expect(yield* tasks.size).toBe(0)
      expect(yield* shared.statistics).toMatchObject({ observers: 0, running: 0, started: 2 })
    })
  )

  it.effect("L29: an observer that asks again in the turn of an exit joins the others of that turn", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const { shared } = yield* sharedIn(lab)
      const again = yield* Effect.replicateEffect(observing(Effect.andThen(shared.get, shared.get)), 3)
      lab.run(0).end(Effect.succeed("one"))
      expect(lab.runs).toHaveLength(2)
      lab.run(1).end(Effect.succeed("two"))
      expect(again.map(exitOf)).toEqual(Array.from({ length: 3 }, () => Exit.succeed("two")))
    })
  )

  it.effect("L29: work that throws instead of giving an effect is a defect for all", () =>
    Effect.gen(function* () {
      const tasks = yield* owner
      const error = new Error("thrown")
      const broken = Effect.suspend((): Effect.Effect<number> => {
        throw error
      })
      const shared = yield* Shared.make(broken, { owner: tasks })
      expect(yield* Effect.exit(shared.get)).toEqual(Exit.die(error))
    })
  )
})

describe("leaving", () => {
  it.effect("L30: an observer's cancel returns at once and touches neither the run nor the others", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const { shared } = yield* sharedIn(lab)
      const [first, second] = [yield* observing(shared.get), yield* observing(shared.get)]
      yield* Fiber.interrupt(first)
      expect(Cause.hasInterruptsOnly((exitOf(first) as Exit.Failure<never, never>).cause)).toBe(true)
      expect(exitOf(second)).toBeUndefined()
      expect(lab.run(0).reason).toBeUndefined()
      lab.run(0).end(Effect.succeed("done"))
      expect(exitOf(second)).toEqual(Exit.succeed("done"))
    })
  )

  it.effect("L30: the last observer's cancel does not wait for the run's clean-up", () =>
    Effect.gen(function* () {
      yield* primeTestClock
      const lab = new Lab(Effect.sleep("1 second"))
      const { shared } = yield* sharedIn(lab)
      const observer = yield* observing(shared.get)
      yield* Fiber.interrupt(observer)
      expect(lab.run(0).reason?._tag).toBe("Unobserved")
      expect(yield* shared.statistics).toMatchObject({ observers: 0, cleaningUp: 1 })
      yield* TestClock.adjust("1 second")
    })
  )

  it.effect(
    "L30: an observer cancelled by the one that was told before it is cancelled, and nobody is told twice",
    () =>
      Effect.gen(function* () {
        const lab = new Lab()
        const { shared } = yield* sharedIn(lab)
        let second: Fiber.Fiber<unknown, unknown> | undefined
        const told: Array<string> = []
        const first = yield* observing(
          Effect.tap(shared.get, () => Effect.sync(() => second?.interruptUnsafe()))
        )
        second = yield* observing(Effect.tap(shared.get, () => Effect.sync(() => told.push("second"))))
        lab.run(0).end(Effect.succeed("done"))
        expect(exitOf(first)).toEqual(Exit.succeed("done"))
        expect(Exit.hasInterrupts(exitOf(second) as Exit.Exit<unknown, unknown>)).toBe(true)
        expect(told).toEqual([])
        expect(yield* shared.observers).toBe(0)
      })
  )

  it.effect("L30: ten thousand observers come and leave, and nothing is left of them", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const { shared, tasks } = yield* sharedIn(lab)
      const observers = yield* Effect.replicateEffect(observing(shared.get), 10_000)
      expect(yield* shared.observers).toBe(10_000)
      for (const observer of observers.slice(0, 9_000)) observer.interruptUnsafe()
      expect(yield* shared.observers).toBe(1_000)
      lab.run(0).end(Effect.succeed("done"))
      expect(observers.slice(9_000).every((observer) => exitOf(observer)?._tag === "Success")).toBe(true)
      expect(yield* tasks.size).toBe(0)
      expect(lab.runs).toHaveLength(1)
    })
  )

  it.effect("L8: a run costs one fiber, and an observer none", () => {
    const fibers = counting()
    return Effect.gen(function* () {
      const lab = new Lab()
      const { shared } = yield* sharedIn(lab)
      const before = fibers.live
      const observers = yield* Effect.replicateEffect(observing(shared.get), 20)
      expect(fibers.live - before - observers.length).toBe(1)
      lab.run(0).end(Effect.succeed("done"))
      expect(fibers.live).toBe(before)
    }).pipe(Effect.provideService(Metric.FiberRuntimeMetrics, fibers))
  })
})

describe("unobserved", () => {
  it.effect("L31: by default the run is cancelled with its last observer, with reason Unobserved", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const { shared, tasks } = yield* sharedIn(lab)
      const observers = yield* Effect.replicateEffect(observing(shared.get), 2)
      yield* Fiber.interrupt(observers[0] as (typeof observers)[number])
      expect(lab.run(0).ended).toBe(false)
      yield* Fiber.interrupt(observers[1] as (typeof observers)[number])
      expect(lab.run(0).reason).toEqual(CancelReason.Unobserved({ lingered: Duration.zero }))
      expect(yield* tasks.size).toBe(0)
    })
  )

  it.effect(
    "L31: with a linger it is cancelled that long after the last observer, and a new one resets that",
    () => {
      const fibers = counting()
      return Effect.gen(function* () {
        yield* primeTestClock
        const lab = new Lab()
        const { shared, tasks } = yield* sharedIn(lab, { whenUnobserved: { linger: "10 millis" } })
        const before = fibers.live
        yield* Fiber.interrupt(yield* observing(shared.get))
        yield* TestClock.adjust("9 millis")
        const late = yield* observing(shared.get)
        yield* TestClock.adjust("100 millis")
        expect(lab.runs).toHaveLength(1)
        yield* Fiber.interrupt(late)
        yield* TestClock.adjust("9 millis")
        expect(lab.run(0).ended).toBe(false)
        yield* TestClock.adjust("1 millis")
        expect(lab.run(0).reason).toEqual(CancelReason.Unobserved({ lingered: Duration.millis(10) }))
        expect(yield* tasks.size).toBe(0)
        expect(fibers.live).toBe(before)
      }).pipe(Effect.provideService(Metric.FiberRuntimeMetrics, fibers))
    }
  )

  it.effect("L8 L31: a run that ends while it lingers takes its timer with it", () => {
    const fibers = counting()
    return Effect.gen(function* () {
      yield* primeTestClock
      const lab = new Lab()
      const { shared } = yield* sharedIn(lab, { whenUnobserved: { linger: "1 hour" } })
      const before = fibers.live
      yield* Fiber.interrupt(yield* observing(shared.get))
      expect(fibers.live).toBeGreaterThan(before + 1)
      lab.run(0).end(Effect.succeed("nobody hears it"))
      expect(fibers.live).toBe(before)
    }).pipe(Effect.provideService(Metric.FiberRuntimeMetrics, fibers))
  })

  it.effect("L31: under keep it runs on, and a later observer finds it", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const { shared } = yield* sharedIn(lab, { whenUnobserved: "keep" })
      yield* Fiber.interrupt(yield* observing(shared.get))
      yield* TestClock.adjust("1 day")
      const late = yield* observing(shared.get)
      lab.run(0).end(Effect.succeed("kept"))
      expect(exitOf(late)).toEqual(Exit.succeed("kept"))
    })
  )

  it.effect(
    "L31 L35: the end of its owner cancels it with the owner's reason, and its observers are told at once",
    () =>
      Effect.gen(function* () {
        yield* primeTestClock
        const lab = new Lab(Effect.sleep("1 second"))
        const scope = yield* Scope.make()
        const context = yield* Layer.buildWithScope(Owner.layer({ drain: 0 }), scope)
        const shared = yield* Effect.provide(Shared.make(lab.work, { whenUnobserved: "keep" }), context)
        const observer = yield* observing(shared.get)
        const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
        yield* TestClock.adjust(0)
        const shutdown = CancelReason.Shutdown({ phase: "force" })
        expect(cancelled(exitOf(observer))).toEqual(shutdown)
        expect(lab.run(0).reason).toEqual(shutdown)
        expect(exitOf(closing)).toBeUndefined()
        yield* TestClock.adjust("1 second")
        expect(exitOf(closing)).toEqual(Exit.void)
      })
  )

  it.effect("L26: a failure that nobody observes is reported once, and one that somebody gets is not", () =>
    Effect.gen(function* () {
      const unhandled: Array<Unhandled> = []
      const lab = new Lab()
      const { shared } = yield* sharedIn(lab, { whenUnobserved: "keep", name: "rates" }).pipe(
        Effect.provideService(OnUnhandled, (one) => Effect.sync(() => unhandled.push(one)))
      )
      yield* Fiber.interrupt(yield* observing(shared.get))
      lab.run(0).end(Effect.fail("no route"))
      expect(unhandled).toEqual([
        { origin: "abandoned work", name: "rates", cause: Cause.fail("no route"), reason: undefined }
      ])
      const observer = yield* observing(shared.get)
      lab.run(1).end(Effect.fail("no route"))
      expect(exitOf(observer)).toEqual(Exit.fail("no route"))
      expect(unhandled).toHaveLength(1)
    })
  )

  it.effect("L26: a clean-up that fails after a cancel is reported once, with the reason", () =>
    Effect.gen(function* () {
      const unhandled: Array<Unhandled> = []
      const { shared } = yield* sharedIn(new Lab(Effect.die("broken"))).pipe(
        Effect.provideService(OnUnhandled, (one) => Effect.sync(() => unhandled.push(one)))
      )
      const observer = yield* observing(shared.get)
      yield* shared.cancel(bye)
      expect(cancelled(exitOf(observer))).toEqual(bye)
      expect(unhandled).toEqual([
        { origin: "abandoned work", name: "shared", cause: Cause.die("broken"), reason: bye }
      ])
    })
  )

  it.effect("L45: shared work ten thousand deep starts, ends and is cancelled without a crash", () =>
    Effect.gen(function* () {
      const tasks = yield* owner
      let ended = 0
      const gate = new Lab()
      let innermost: Effect.Effect<string, string | SharedCancelled> = gate.work
      for (let depth = 0; depth < 10_000; depth++) {
        const inner = innermost
        const shared = yield* Shared.make(
          Effect.onExit(inner, () => Effect.sync(() => ended++)),
          { owner: tasks }
        )
        innermost = shared.get
      }
      const first = yield* observing(innermost)
      while (gate.runs.length < 1) yield* Effect.yieldNow
      gate.run(0).end(Effect.succeed("deep"))
      expect(yield* Fiber.join(first)).toBe("deep")
      expect(ended).toBe(10_000)
      const second = yield* observing(innermost)
      while (gate.runs.length < 2) yield* Effect.yieldNow
      yield* Fiber.interrupt(second)
      while ((yield* tasks.size) > 0) yield* Effect.yieldNow
      expect(gate.run(1).reason?._tag).toBe("Unobserved")
      expect(ended).toBe(20_000)
    })
  )
})

describe("generations", () => {
  it.effect(
    "L32: exclusive, the next run starts in the turn in which the clean-up of the one before ends",
    () =>
      Effect.gen(function* () {
        yield* primeTestClock
        const lab = new Lab(Effect.sleep("1 second"))
        const { shared } = yield* sharedIn(lab)
        yield* Fiber.interrupt(yield* observing(shared.get))
        const next = yield* observing(shared.get)
        expect(yield* shared.statistics).toMatchObject({ waiting: 1, cleaningUp: 1, observers: 1 })
        yield* TestClock.adjust("999 millis")
        expect(lab.runs).toHaveLength(1)
        yield* TestClock.adjust("1 millis")
        expect(lab.runs).toHaveLength(2)
        lab.run(1).end(Effect.succeed("next"))
        expect(exitOf(next)).toEqual(Exit.succeed("next"))
        expect(lab.mostActive).toBe(1)
      })
  )

  it.effect("L32: a generation that waits and loses its observers does not start", () =>
    Effect.gen(function* () {
      yield* primeTestClock
      const lab = new Lab(Effect.sleep("1 second"))
      const { shared } = yield* sharedIn(lab)
      yield* Fiber.interrupt(yield* observing(shared.get))
      yield* Fiber.interrupt(yield* observing(shared.get))
      yield* TestClock.adjust("1 second")
      expect(lab.runs).toHaveLength(1)
      expect(yield* shared.statistics).toMatchObject({ waiting: 0, running: 0, cleaningUp: 0 })
    })
  )

  it.effect("L32: overlap, the next run starts beside the clean-up", () =>
    Effect.gen(function* () {
      yield* primeTestClock
      const lab = new Lab(Effect.sleep("1 second"))
      const { shared } = yield* sharedIn(lab, { generations: "overlap" })
      yield* Fiber.interrupt(yield* observing(shared.get))
      yield* observing(shared.get)
      expect(lab.mostActive).toBe(2)
      lab.run(1).end(Effect.succeed("beside"))
      yield* TestClock.adjust("1 second")
    })
  )

  it.effect(
    "L32: a clean-up that overruns its budget becomes stuck, is reported once, and the next generation starts",
    () =>
      Effect.gen(function* () {
        yield* primeTestClock
        const unhandled: Array<Unhandled> = []
        const lab = new Lab(Effect.sleep("1 hour"))
        const { shared } = yield* sharedIn(lab, { name: "rates" }).pipe(
          Effect.provideService(CleanupBudget, Duration.seconds(10)),
          Effect.provideService(OnUnhandled, (one) => Effect.sync(() => unhandled.push(one)))
        )
        yield* Fiber.interrupt(yield* observing(shared.get))
        const next = yield* observing(shared.get)
        yield* TestClock.adjust("9 seconds")
        expect(lab.runs).toHaveLength(1)
        yield* TestClock.adjust("1 second")
        expect(lab.runs).toHaveLength(2)
        const reason = CancelReason.Unobserved({ lingered: Duration.zero })
        expect(yield* stuck).toMatchObject([{ kind: "task", name: "rates", reason }])
        expect(unhandled).toEqual([
          {
            origin: "cleanup",
            name: "rates",
            cause: Cause.die(new SharedStuck({ name: "rates", reason })),
            reason
          }
        ])
        expect(yield* shared.statistics).toMatchObject({ stuck: 1, running: 1, cleaningUp: 0 })
        lab.run(1).end(Effect.succeed("beside"))
        expect(exitOf(next)).toEqual(Exit.succeed("beside"))
        yield* TestClock.adjust("1 hour")
        expect(lab.run(0).ended).toBe(true)
        expect(yield* stuck).toEqual([])
        expect(unhandled).toHaveLength(1)
        expect(yield* shared.statistics).toMatchObject({ stuck: 0, running: 0 })
      })
  )

  it.effect("L8 L32: a clean-up within its budget leaves no watch behind", () => {
    const fibers = counting()
    return Effect.gen(function* () {
      yield* primeTestClock
      const lab = new Lab(Effect.sleep("1 second"))
      const { shared } = yield* sharedIn(lab)
      const before = fibers.live
      yield* Fiber.interrupt(yield* observing(shared.get))
      yield* TestClock.adjust("1 second")
      expect(fibers.live).toBe(before)
      expect(yield* stuck).toEqual([])
    }).pipe(Effect.provideService(Metric.FiberRuntimeMetrics, fibers))
  })

  it.effect("L29 L32: an invalidation gives later observers a new run, and those who wait keep theirs", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const { shared } = yield* sharedIn(lab, { retain: () => "1 hour" })
      const first = yield* observing(shared.get)
      yield* shared.invalidate
      const second = yield* observing(shared.get)
      expect(lab.runs).toHaveLength(1)
      lab.run(0).end(Effect.succeed("old"))
      expect(exitOf(first)).toEqual(Exit.succeed("old"))
      expect(exitOf(second)).toBeUndefined()
      lab.run(1).end(Effect.succeed("new"))
      expect(exitOf(second)).toEqual(Exit.succeed("new"))
      expect(yield* shared.get).toBe("new")
      expect(lab.mostActive).toBe(1)
    })
  )
})

describe("retention", () => {
  it.effect("L33: by default nothing is held", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const { shared } = yield* sharedIn(lab)
      yield* observing(shared.get)
      lab.run(0).end(Effect.succeed("one"))
      yield* observing(shared.get)
      expect(lab.runs).toHaveLength(2)
    })
  )

  it.effect("L33: a success and a failure are held as long as retain says, and the very exit is given", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const { shared } = yield* sharedIn(lab, {
        retain: (exit) => (Exit.isSuccess(exit) ? "10 seconds" : "1 second")
      })
      yield* observing(shared.get)
      lab.run(0).end(Effect.succeed("one"))
      yield* TestClock.adjust("9999 millis")
      expect(yield* shared.get).toBe("one")
      yield* TestClock.adjust("1 millis")
      const failing = yield* observing(shared.get)
      expect(lab.runs).toHaveLength(2)
      lab.run(1).end(Effect.fail("no"))
      const held = yield* observing(shared.get)
      expect(causeOf(held)).toEqual(Cause.fail("no"))
      expect(causeOf(held)).toBe(causeOf(failing))
      yield* TestClock.adjust("1 second")
      yield* observing(shared.get)
      expect(lab.runs).toHaveLength(3)
      expect(yield* shared.statistics).toMatchObject({ hits: 2, retained: 0 })
    })
  )

  it.effect("L33: an interruption is never held, whether it comes from outside or from inside the work", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const asked: Array<Exit.Exit<string, string>> = []
      const { shared } = yield* sharedIn(lab, {
        retain: (exit) => {
          asked.push(exit)
          return Duration.infinity
        }
      })
      yield* observing(shared.get)
      yield* shared.cancel()
      yield* observing(shared.get)
      lab.run(1).end(Effect.interrupt)
      yield* observing(shared.get)
      expect(lab.runs).toHaveLength(3)
      expect(asked).toEqual([])
    })
  )

  it.effect("L33: a retain that throws is a defect of the run", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const error = new Error("retain")
      const { shared } = yield* sharedIn(lab, {
        retain: () => {
          throw error
        }
      })
      const observer = yield* observing(shared.get)
      lab.run(0).end(Effect.succeed("one"))
      expect(exitOf(observer)).toEqual(Exit.die(error))
      expect(yield* shared.statistics).toMatchObject({ running: 0, retained: 0, observers: 0 })
    })
  )

  it.effect("a retain that throws at a failure does not take its place, and is reported", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const error = new Error("retain")
      const unhandled: Array<Unhandled> = []
      const { shared } = yield* sharedIn(lab, {
        retain: () => {
          throw error
        }
      }).pipe(Effect.provideService(OnUnhandled, (one) => Effect.sync(() => unhandled.push(one))))
      const observer = yield* observing(shared.get)
      lab.run(0).end(Effect.fail("boom"))
      expect(exitOf(observer)).toEqual(Exit.fail("boom"))
      expect(unhandled.map(({ cause }) => cause)).toEqual([Cause.die(error)])
      expect(yield* shared.statistics).toMatchObject({ running: 0, retained: 0, observers: 0 })
    })
  )

  it.effect("a retain that throws at a failure that nobody observes is reported beside the failure", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const error = new Error("retain")
      const unhandled: Array<Unhandled> = []
      const { shared } = yield* sharedIn(lab, {
        name: "rates",
        whenUnobserved: "keep",
        retain: () => {
          throw error
        }
      }).pipe(Effect.provideService(OnUnhandled, (one) => Effect.sync(() => unhandled.push(one))))
      yield* Fiber.interrupt(yield* observing(shared.get))
      lab.run(0).end(Effect.fail("boom"))
      expect(unhandled).toEqual([
        { origin: "cleanup", name: "rates", cause: Cause.die(error), reason: undefined },
        { origin: "abandoned work", name: "rates", cause: Cause.fail("boom"), reason: undefined }
      ])
    })
  )

  it.effect("L33: an invalidation lets go of what is held", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const { shared } = yield* sharedIn(lab, { retain: () => Duration.infinity })
      yield* observing(shared.get)
      lab.run(0).end(Effect.succeed("one"))
      expect(yield* shared.get).toBe("one")
      yield* shared.invalidate
      yield* observing(shared.get)
      expect(lab.runs).toHaveLength(2)
    })
  )
})

class Tenant extends Context.Service<Tenant, string>()("Tenant") {}
class Request extends Context.Service<Request, string>()("Request") {}

interface Seen {
  readonly tenant: string
  readonly request: string | undefined
  readonly scope: Scope.Scope
  readonly span: Option.Option<Tracer.AnySpan>
  readonly annotations: Readonly<Record<string, unknown>>
  readonly logSpans: ReadonlyArray<unknown>
  readonly reason: Option.Option<CancelReason>
}

describe("isolation", () => {
  it.effect("L34: the run sees no observer's services, scope, span, annotations, reason or deadline", () =>
    Effect.gen(function* () {
      const tasks = yield* owner
      const observer = yield* Scope.make()
      const shared = yield* Shared.make(
        Effect.gen(function* () {
          const context = yield* Effect.context<Tenant | Request>()
          return {
            tenant: yield* Tenant,
            request: Option.getOrUndefined(Context.getOption(context, Request)),
            scope: yield* Effect.scope,
            span: yield* Effect.option(Effect.currentParentSpan),
            annotations: yield* References.CurrentLogAnnotations,
            logSpans: yield* References.CurrentLogSpans,
            reason: yield* outerReason
          }
        }) as Effect.Effect<Seen, never, Tenant | Scope.Scope>,
        { owner: tasks }
      ).pipe(
        Effect.provideService(Tenant, "maker"),
        Effect.annotateLogs("app", "curfew"),
        Effect.withLogSpan("make"),
        Effect.withSpan("make")
      )
      let saw: Option.Option<Seen> = Option.none()
      const outcome = yield* CancelScope.run((scope) =>
        Effect.uninterruptible(
          Effect.gen(function* () {
            yield* scope.cancel(bye)
            saw = Option.some(
              yield* failAfter("1 second")(
                shared.get.pipe(
                  Effect.provideService(Request, "r1"),
                  Effect.provideService(Tenant, "observer"),
                  Effect.provideService(Scope.Scope, observer),
                  Effect.withSpan("request"),
                  Effect.annotateLogs("request", "r1"),
                  Effect.withLogSpan("request")
                )
              )
            )
          })
        )
      )
      expect(outcome._tag).toBe("Cancelled")
      const seen = Option.getOrThrow(saw as Option.Option<Seen>)
      expect([seen.tenant, seen.request]).toEqual(["maker", undefined])
      expect(seen.annotations).toEqual({ app: "curfew" })
      expect(seen.logSpans).toEqual([])
      expect(seen.scope).not.toBe(observer)
      expect(seen.span._tag).toBe("None")
      expect(seen.reason._tag).toBe("None")
    })
  )
  it.effect(
    "L34 L36: each run has a scope of its own, which closes at its end, before its observers go on",
    () =>
      Effect.gen(function* () {
        const tasks = yield* owner
        const log: Array<string> = []
        const shared = yield* Shared.make(
          Effect.acquireRelease(
            Effect.sync(() => log.push("acquired")),
            () => Effect.sync(() => log.push("released"))
          ),
          { owner: tasks }
        )
        yield* shared.get
        log.push("told")
        yield* shared.get
        expect(log).toEqual(["acquired", "released", "told", "acquired", "released"])
      })
  )

  it.effect("L34: a run's deadline and cancel are not its first observer's", () =>
    Effect.gen(function* () {
      yield* primeTestClock
      const lab = new Lab()
      const { shared } = yield* sharedIn(lab)
      const first = yield* observing(failAfter("1 second")(shared.get))
      const second = yield* observing(shared.get)
      yield* TestClock.adjust("1 second")
      expect(exitOf(first)?._tag).toBe("Failure")
      lab.run(0).end(Effect.succeed("done"))
      expect(exitOf(second)).toEqual(Exit.succeed("done"))
    })
  )

  it.effect(
    "L36: linked, the span of a run and those of its observers link to each other, and none is the parent",
    () =>
      Effect.gen(function* () {
        const tasks = yield* owner
        const gate = new Lab()
        const shared = yield* Shared.make(Effect.andThen(gate.work, Effect.currentSpan), {
          owner: tasks,
          context: "linked",
          name: "rates"
        }).pipe(Effect.withSpan("make"))
        const asking = (name: string) =>
          observing(
            Effect.withSpan(
              Effect.flatMap(shared.get, (run) =>
                Effect.map(Effect.currentSpan, (own) => [run, own] as const)
              ),
              name
            ) as Effect.Effect<readonly [Tracer.Span, Tracer.Span], never>
          )
        const [one, two] = [yield* asking("one"), yield* asking("two")]
        gate.run(0).end(Effect.succeed(""))
        const [run, first] = yield* Fiber.join(one)
        const [, second] = yield* Fiber.join(two)
        expect([run.name, run.parent._tag]).toEqual(["rates", "None"])
        expect(run.links.map(({ span }) => span)).toEqual([first, second])
        expect(first.links.map(({ span }) => span)).toEqual([run])
        expect(second.links.map(({ span }) => span)).toEqual([run])
      })
  )
})

describe("cancelling the source", () => {
  it.effect("L35: every observer gets SharedCancelled with the reason, at once, and may ask again", () =>
    Effect.gen(function* () {
      yield* primeTestClock
      const lab = new Lab(Effect.sleep("1 second"))
      const { shared } = yield* sharedIn(lab)
      const observers = yield* Effect.replicateEffect(observing(shared.get), 2)
      const again = yield* observing(
        Effect.catchTag(
          shared.get as Effect.Effect<string, SharedCancelled>,
          "SharedCancelled",
          () => shared.get
        )
      )
      expect(yield* shared.cancel(bye)).toBe(true)
      for (const observer of observers) expect(cancelled(exitOf(observer))).toEqual(bye)
      expect(exitOf(again)).toBeUndefined()
      expect(lab.run(0).reason).toEqual(bye)
      yield* TestClock.adjust("1 second")
      lab.run(1).end(Effect.succeed("again"))
      expect(exitOf(again)).toEqual(Exit.succeed("again"))
    })
  )

  it.effect("L35: an interrupt from inside the work is SharedCancelled as well", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const { shared } = yield* sharedIn(lab)
      const observer = yield* observing(shared.get)
      lab.run(0).end(Effect.interrupt)
      expect(cancelled(exitOf(observer))).toEqual(CancelReason.Unknown())
    })
  )

  it.effect("L35: work that cancels its own source tells its observers", () =>
    Effect.gen(function* () {
      const tasks = yield* owner
      let self: Shared.Shared<never> | undefined
      const shared: Shared.Shared<never> = yield* Shared.make(
        Effect.andThen(
          Effect.suspend(() => self?.cancel(bye) ?? Effect.void),
          Effect.never
        ),
        { owner: tasks }
      )
      self = shared
      expect(cancelled(yield* Effect.exit(shared.get))).toEqual(bye)
      expect(yield* tasks.size).toBe(0)
    })
  )

  it.effect("L35: cancelling what does not run is false and changes nothing, and so is a second cancel", () =>
    Effect.gen(function* () {
      yield* primeTestClock
      const lab = new Lab(Effect.sleep("1 second"))
      const { shared } = yield* sharedIn(lab)
      expect(yield* shared.cancel(bye)).toBe(false)
      const observer = yield* observing(shared.get)
      expect(yield* shared.cancel(bye)).toBe(true)
      expect(yield* shared.cancel()).toBe(false)
      expect(cancelled(exitOf(observer))).toEqual(bye)
      yield* TestClock.adjust("1 second")
      expect(lab.run(0).reason).toEqual(bye)
      expect(yield* shared.cancel(bye)).toBe(false)
    })
  )

  it.effect("L35: a generation that waits for its turn is cancelled with the one before it", () =>
    Effect.gen(function* () {
      yield* primeTestClock
      const lab = new Lab(Effect.sleep("1 second"))
      const { shared } = yield* sharedIn(lab)
      yield* Fiber.interrupt(yield* observing(shared.get))
      const waiting = yield* observing(shared.get)
      expect(yield* shared.cancel(bye)).toBe(true)
      expect(cancelled(exitOf(waiting))).toEqual(bye)
      yield* TestClock.adjust("1 second")
      expect(lab.runs).toHaveLength(1)
    })
  )

  it.effect("L29 L35: an exit that is known when the source is cancelled is what the observers get", () =>
    Effect.gen(function* () {
      yield* primeTestClock
      const tasks = yield* owner
      // The child's clean-up holds the run's fiber after its work has ended.
      const work = Effect.as(
        Effect.forkChild(
          Effect.onExit(Effect.never, () => Effect.sleep("1 second")),
          { startImmediately: true }
        ),
        "value"
      )
      const shared = yield* Shared.make(work, { owner: tasks })
      const observer = yield* observing(shared.get)
      expect(exitOf(observer)).toBeUndefined()
      yield* shared.cancel(bye)
      expect(exitOf(observer)).toEqual(Exit.succeed("value"))
      yield* TestClock.adjust("1 second")
    })
  )
})

describe("masks", () => {
  it.effect("L44: an observer in a mask waits for the exit, and its cancel reaches nobody", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const { shared } = yield* sharedIn(lab)
      const observer = yield* observing(Effect.uninterruptible(shared.get))
      observer.interruptUnsafe()
      expect(exitOf(observer)).toBeUndefined()
      expect(lab.run(0).reason).toBeUndefined()
      expect(yield* shared.observers).toBe(1)
      lab.run(0).end(Effect.succeed("done"))
      expect(Exit.hasInterrupts(exitOf(observer) as Exit.Exit<unknown, unknown>)).toBe(true)
      expect(lab.run(0)).toMatchObject({ reason: undefined, ended: true })
    })
  )

  it.effect("L44: a cancel scope around a masked observer is no road into the run", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const { shared } = yield* sharedIn(lab)
      let scope: CancelScope.CancelScope | undefined
      const running = yield* Effect.forkChild(
        CancelScope.run((own) => {
          scope = own
          return Effect.uninterruptible(shared.get)
        }),
        { startImmediately: true }
      )
      yield* (scope as unknown as CancelScope.CancelScope).cancel(bye)
      expect(lab.run(0).reason).toBeUndefined()
      lab.run(0).end(Effect.succeed("done"))
      expect(exitOf(running)).toEqual(Exit.succeed({ _tag: "Cancelled", reason: bye }))
    })
  )
})

describe("closed owners", () => {
  const closed = (lab: Lab, options?: Parameters<typeof sharedIn>[1]) =>
    Effect.gen(function* () {
      const made = yield* sharedIn(lab, options)
      yield* made.tasks.close
      return made
    })
  const refused = Effect.map(Metric.value(ownerClosedTotal), ({ count }) => count)

  it.effect("L46: the run is attached to its first observer, is counted once, and others may join it", () =>
    Effect.gen(function* () {
      const before = yield* refused
      const lab = new Lab()
      const { shared, tasks } = yield* closed(lab)
      const observers = yield* Effect.replicateEffect(observing(shared.get), 2)
      expect(yield* tasks.size).toBe(0)
      lab.run(0).end(Effect.succeed("done"))
      expect(observers.map(exitOf)).toEqual([Exit.succeed("done"), Exit.succeed("done")])
      expect((yield* refused) - before).toBe(1)
    })
  )

  it.effect("L46: the host leaves only when the run is over, and the others at once", () =>
    Effect.gen(function* () {
      yield* primeTestClock
      const lab = new Lab(Effect.sleep("1 second"))
      const { shared } = yield* closed(lab)
      const [host, guest] = [yield* observing(shared.get), yield* observing(shared.get)]
      yield* Fiber.interrupt(guest)
      host.interruptUnsafe()
      expect(lab.run(0).reason?._tag).toBe("Unobserved")
      expect(exitOf(host)).toBeUndefined()
      yield* TestClock.adjust("1 second")
      expect(Exit.hasInterrupts(exitOf(host) as Exit.Exit<unknown, unknown>)).toBe(true)
    })
  )

  it.effect("L46: under keep a cancelled host stays to the run's end", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const { shared } = yield* closed(lab, { whenUnobserved: "keep" })
      const host = yield* observing(shared.get)
      host.interruptUnsafe()
      expect([exitOf(host), lab.run(0).reason]).toEqual([undefined, undefined])
      lab.run(0).end(Effect.succeed("done"))
      expect(Exit.hasInterrupts(exitOf(host) as Exit.Exit<unknown, unknown>)).toBe(true)
    })
  )

  it.effect("L35 L46: when the source is cancelled, the host is told when the clean-up has ended", () =>
    Effect.gen(function* () {
      yield* primeTestClock
      const lab = new Lab(Effect.sleep("1 second"))
      const { shared } = yield* closed(lab)
      const [host, guest] = [yield* observing(shared.get), yield* observing(shared.get)]
      yield* shared.cancel(bye)
      expect(cancelled(exitOf(guest))).toEqual(bye)
      expect(exitOf(host)).toBeUndefined()
      yield* TestClock.adjust("1 second")
      expect(cancelled(exitOf(host))).toEqual(bye)
    })
  )

  it.effect("L32 L46: a host of a run whose clean-up is stuck goes on", () =>
    Effect.gen(function* () {
      yield* primeTestClock
      const lab = new Lab(Effect.sleep("1 hour"))
      const { shared } = yield* closed(lab).pipe(
        Effect.provideService(CleanupBudget, Duration.seconds(1)),
        Effect.provideService(OnUnhandled, () => Effect.void)
      )
      const host = yield* observing(shared.get)
      host.interruptUnsafe()
      yield* TestClock.adjust("1 second")
      expect(Exit.hasInterrupts(exitOf(host) as Exit.Exit<unknown, unknown>)).toBe(true)
      expect(yield* stuck).toHaveLength(1)
      yield* TestClock.adjust("1 hour")
      expect(yield* stuck).toEqual([])
    })
  )

  it.effect(
    "L32 L46: a generation whose turn comes after its owner was closed is attached to an observer",
    () =>
      Effect.gen(function* () {
        yield* primeTestClock
        const lab = new Lab(Effect.sleep("1 second"))
        const { shared, tasks } = yield* sharedIn(lab)
        yield* Fiber.interrupt(yield* observing(shared.get))
        const next = yield* observing(shared.get)
        yield* tasks.close
        yield* TestClock.adjust("1 second")
        expect(yield* tasks.size).toBe(0)
        lab.run(1).end(Effect.succeed("next"))
        expect(exitOf(next)).toEqual(Exit.succeed("next"))
      })
  )

  it.effect(
    "L32: a clean-up that its owner ordered and that never ends does not hold up the next generation for ever",
    () =>
      Effect.gen(function* () {
        yield* primeTestClock
        const lab = new Lab(Effect.sleep("1 hour"))
        const { shared, tasks } = yield* sharedIn(lab).pipe(
          Effect.provideService(CleanupBudget, Duration.seconds(1))
        )
        yield* observing(shared.get)
        const ending = yield* Effect.forkChild(tasks.cancel(bye), { startImmediately: true })
        const next = yield* observing(shared.get)
        yield* TestClock.adjust("1 second")
        expect(lab.runs).toHaveLength(2)
        lab.run(1).end(Effect.succeed("next"))
        expect(exitOf(next)).toEqual(Exit.succeed("next"))
        yield* TestClock.adjust("10 seconds")
        expect(exitOf(ending)).toEqual(Exit.void)
        // The owner's record is the only one.
        expect(yield* stuck).toHaveLength(1)
        yield* TestClock.adjust("1 hour")
        expect(yield* stuck).toEqual([])
      })
  )
})

describe("the quartet", () => {
  const quartet = (
    name: string,
    act: (shared: Shared.Shared<string, string>) => Effect.Effect<unknown, unknown>
  ) =>
    it.effect(`${name} leaves nothing behind, cancelled before, during, after, and twice`, () =>
      Effect.gen(function* () {
        const lab = new Lab()
        const { shared, tasks } = yield* sharedIn(lab)
        const idle = { observers: 0, waiting: 0, running: 0, cleaningUp: 0, stuck: 0 }
        const before = yield* Effect.forkChild(act(shared))
        yield* Fiber.interrupt(before)
        expect(yield* shared.statistics).toMatchObject(idle)
        const during = yield* observing(act(shared) as typeof shared.get)
        yield* Fiber.interrupt(during)
        expect(yield* shared.statistics).toMatchObject(idle)
        const after = yield* observing(act(shared) as typeof shared.get)
        lab.runs.at(-1)?.end(Effect.succeed("done"))
        yield* Fiber.interrupt(after)
        expect(exitOf(after)?._tag).toBe("Success")
        expect(yield* shared.statistics).toMatchObject(idle)
        const twice = yield* observing(act(shared) as typeof shared.get)
        twice.interruptUnsafe()
        twice.interruptUnsafe()
        expect(yield* shared.statistics).toMatchObject(idle)
        expect(yield* tasks.size).toBe(0)
      })
    )
  quartet("get", (shared) => shared.get)
  quartet("cancel", (shared) => shared.cancel())
  quartet("invalidate", (shared) => shared.invalidate)

  it.effect("make leaves nothing behind, cancelled before, during, after, and twice", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const tasks = yield* owner
      const making = Shared.make(lab.work, { owner: tasks })
      yield* Fiber.interrupt(yield* Effect.forkChild(making))
      const twice = yield* Effect.forkChild(Effect.andThen(Effect.yieldNow, making), {
        startImmediately: true
      })
      twice.interruptUnsafe()
      twice.interruptUnsafe()
      yield* Fiber.interrupt(yield* Effect.forkChild(making, { startImmediately: true }))
      expect(yield* tasks.size).toBe(0)
      expect(lab.runs).toEqual([])
    })
  )
})

describe("owners", () => {
  it.effect("L31: without one given, the surrounding Owner answers for the runs, and drains them", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(Owner.layer(), scope)
      const shared = yield* Effect.provide(Shared.make(lab.work, { whenUnobserved: "keep" }), context)
      yield* Fiber.interrupt(yield* observing(shared.get))
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
      expect(exitOf(closing)).toBeUndefined()
      lab.run(0).end(Effect.succeed("drained"))
      yield* Fiber.join(closing)
      expect(lab.run(0).reason).toBeUndefined()
    })
  )

  it.effect("L36: a run may start background work of its own", () =>
    Effect.gen(function* () {
      const shared = yield* Shared.make(
        Effect.flatMap(background("inner", Effect.succeed(1)), (task) => task.join)
      )
      expect(yield* shared.get).toBe(1)
    }).pipe(Effect.provide(Owner.layer()))
  )

  it.effect("L25: a failing run does not cancel the siblings of a task scope that fails fast", () =>
    Effect.gen(function* () {
      const value = yield* TaskScope.use((tasks: TaskScope.TaskScope<unknown>) =>
        Effect.gen(function* () {
          const shared = yield* Shared.make(Effect.fail("no"), { owner: tasks })
          expect(yield* Effect.exit(shared.get)).toEqual(Exit.fail("no"))
          return "unharmed"
        })
      )
      expect(value).toBe("unharmed")
      expect(yield* currentReason).toEqual(Option.none())
    })
  )
})
