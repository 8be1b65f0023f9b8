/** A cancellation is seen in spans, log lines and metrics, with its reason. */
import { attributes, CancelReason, cancelledTotal, cleanupMillis } from "@curfew/reason"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as References from "effect/References"
import * as Tracer from "effect/Tracer"
import { TestClock } from "effect/testing"
import {
  background,
  bounded,
  CancelLogs,
  CancelScope,
  CancelTracing,
  failAfter,
  Owner,
  reportUnhandled,
  stuckTotal,
  TaskScope,
  unhandledTotal
} from "../src/index.ts"

const gone = CancelReason.ClientGone({ transport: "http1", detail: "reset" })

/** A tracer that keeps its spans, as an exporter with a class of its own would. */
const memory = () => {
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  const named = (name: string) => {
    const found = spans.filter((span) => span.name === name)
    expect(found, name).toHaveLength(1)
    return found[0] as Tracer.NativeSpan
  }
  const stamps = (name: string) =>
    Object.fromEntries([...named(name).attributes].filter(([key]) => key.startsWith("curfew.")))
  const traced = <A, E, R>(work: Effect.Effect<A, E, R>) =>
    Effect.provideService(work, Tracer.Tracer, CancelTracing.stamping(tracer))
  return { named, spans, stamps, traced, tracer }
}

/** A logger that keeps its lines, with what they say of a cancellation. */
const lines = () => {
  const seen: Array<readonly [message: string, reason: unknown, other: unknown]> = []
  const logger = Logger.make<unknown, void>(({ fiber, message }) => {
    const annotations = fiber.getRef(References.CurrentLogAnnotations)
    seen.push([String(message), annotations["curfew.cancel.reason"], annotations["other"]])
  })
  return { logger, seen }
}

const count = (metric: Metric.Metric<number, Metric.CounterState<number>>, labels: Record<string, string>) =>
  Effect.map(Metric.value(Metric.withAttributes(metric, labels)), (state) => state.count)

const freshMetrics = <A, E, R>(work: Effect.Effect<A, E, R>) =>
  Effect.provideService(work, Metric.MetricRegistry, new Map())

describe("the attributes of a reason", () => {
  it("are its tag, its sentence, its fields that are words or numbers, and the scope", () => {
    expect(attributes(gone, "GET /")).toEqual({
      "curfew.cancel.reason": "ClientGone",
      "curfew.cancel.message": "the client has gone (http1: reset)",
      "curfew.cancel.transport": "http1",
      "curfew.cancel.detail": "reset",
      "curfew.cancel.scope": "GET /"
    })
    const cause = Cause.fail("secret")
    expect(attributes(CancelReason.SiblingFailed({ cause }))).toEqual({
      "curfew.cancel.reason": "SiblingFailed",
      "curfew.cancel.message": "a sibling has failed"
    })
  })
})

describe("spans", () => {
  it.effect(
    "that end by a cancel carry its reason and the scope, in a body, a task and native children",
    () =>
      Effect.gen(function* () {
        const { named, stamps, traced } = memory()
        const hang = (name: string) => Effect.withSpan(Effect.never, name)
        const body = TaskScope.use((tasks: TaskScope.TaskScope) =>
          Effect.gen(function* () {
            yield* tasks.spawn(hang("task"))
            yield* Effect.forkChild(hang("child"), { startImmediately: true })
            yield* Effect.all([hang("item"), hang("outer inner")], { concurrency: 2 })
          })
        )
        const fiber = yield* Effect.forkChild(
          traced(
            Effect.withSpan(
              CancelScope.run(
                (scope) =>
                  Effect.andThen(
                    Effect.forkChild(Effect.andThen(Effect.yieldNow, scope.cancel(gone))),
                    Effect.withSpan(body, "body")
                  ),
                { name: "request" }
              ),
              "around"
            )
          )
        )
        expect(yield* Fiber.join(fiber)).toMatchObject({ _tag: "Cancelled" })
        for (const name of ["body", "task", "child", "item", "outer inner"])
          expect(stamps(name), name).toEqual(attributes(gone, "request"))
        // What goes on after the cancel was not cancelled.
        expect(stamps("around")).toEqual({})
        expect(named("around").status).toMatchObject({ exit: { _tag: "Success" } })
      })
  )

  it.effect("are told the moment of the cancel by one event, before any finalizer runs", () =>
    Effect.gen(function* () {
      const { named, traced } = memory()
      const seen: Array<number> = []
      const body = (scope: CancelScope.CancelScope) =>
        TaskScope.use((tasks: TaskScope.TaskScope) =>
          Effect.gen(function* () {
            const watch = Effect.sync(() => seen.push(named("one").events.length))
            yield* tasks.spawn(Effect.ensuring(Effect.never, watch))
            yield* tasks.spawn(Effect.never)
            yield* TestClock.adjust("2 seconds")
            yield* scope.cancel(gone)
            yield* Effect.never
          })
        )
      yield* traced(Effect.withSpan(CancelScope.run(body, { name: "request" }), "one"))
      expect(seen).toEqual([1])
      expect(named("one").events).toEqual([["cancelled", 2_000_000_000n, attributes(gone, "request")]])
    })
  )

  it.effect("that end in another way, or lose a race, are left as they are", () =>
    Effect.gen(function* () {
      const { spans, traced } = memory()
      const span = (name: string) => Effect.withSpan(name)
      yield* traced(
        Effect.all(
          [
            CancelScope.run(() => Effect.succeed(1)).pipe(span("success")),
            Effect.exit(Effect.fail("no").pipe(span("failure"))),
            Effect.exit(Effect.die("no").pipe(span("defect"))),
            Effect.race(Effect.never.pipe(span("loser")), Effect.yieldNow),
            CancelScope.run(() => Effect.never.pipe(span("native"), Effect.timeoutOption("1 second"))),
            CancelScope.run((scope) =>
              Effect.uninterruptible(
                Effect.exit(
                  Effect.andThen(scope.cancel(gone), Effect.fail("no")).pipe(
                    span("failure in cancelled work")
                  )
                )
              )
            ),
            // In clean-up of cancelled work, too: the time-out's loser is not what was cancelled.
            CancelScope.run((scope) =>
              Effect.ensuring(
                scope.cancel(gone),
                Effect.timeoutOption(Effect.never.pipe(span("loser in clean-up")), "1 second")
              )
            ),
            Effect.exit(
              failAfter("1 second")(Effect.uninterruptible(Effect.sleep("2 seconds").pipe(span("late"))))
            ),
            TestClock.adjust("5 seconds")
          ],
          { concurrency: "unbounded" }
        )
      )
      expect(spans.map((one) => one.name).sort()).toEqual([
        "defect",
        "failure",
        "failure in cancelled work",
        "late",
        "loser",
        "loser in clean-up",
        "native",
        "success"
      ])
      for (const one of spans)
        expect([one.name, [...one.attributes.keys()].filter((key) => key.startsWith("curfew."))]).toEqual([
          one.name,
          []
        ])
    })
  )

  it.effect("of work that only waited for what was cancelled say that the cancel is foreign", () =>
    Effect.gen(function* () {
      const { stamps, traced } = memory()
      yield* Effect.scoped(
        Effect.gen(function* () {
          const tasks = yield* TaskScope.make()
          const task = yield* tasks.spawn(Effect.withSpan(Effect.never, "work"))
          const waiter = yield* Effect.forkChild(Effect.withSpan(task.join, "waiter"), {
            startImmediately: true
          })
          yield* task.cancel(gone)
          yield* Fiber.await(waiter)
        })
      ).pipe(traced)
      expect(stamps("work")).toEqual(attributes(gone))
      expect(stamps("waiter")).toEqual({ ...attributes(gone), "curfew.cancel.foreign": true })
    })
  )

  it.effect("keep the exporter's class, and its parent, and the layer wraps what it finds", () =>
    Effect.gen(function* () {
      const { named, stamps, tracer } = memory()
      const inner = CancelScope.run((scope) =>
        Effect.withSpan(Effect.andThen(scope.cancel(gone), Effect.never), "inner")
      )
      yield* Effect.withSpan(inner, "outer").pipe(
        Effect.provide(CancelTracing.layer),
        Effect.provideService(Tracer.Tracer, tracer)
      )
      expect(stamps("inner")).toMatchObject({ "curfew.cancel.reason": "ClientGone" })
      expect(named("inner")).toBeInstanceOf(Tracer.NativeSpan)
      expect(named("inner").parent).toMatchObject({ value: named("outer") })
    })
  )

  it.effect("have a throwing tracer told to the canceller, after every interrupt is on its way", () =>
    Effect.gen(function* () {
      const broken = Tracer.make({
        span: (options) => {
          const span = new Tracer.NativeSpan(options)
          span.event = () => {
            throw new Error("the exporter is broken")
          }
          return span
        }
      })
      const ended: Array<string> = []
      const started = yield* Deferred.make<CancelScope.CancelScope>()
      const fiber = yield* Effect.forkChild(
        CancelScope.run((scope) =>
          Effect.ensuring(
            Effect.withSpan(Effect.andThen(Deferred.succeed(started, scope), Effect.never), "work"),
            Effect.sync(() => ended.push("work"))
          )
        ).pipe(Effect.provideService(Tracer.Tracer, broken))
      )
      const scope = yield* Deferred.await(started)
      // Until the work waits: an interrupt reaches it from here only, and not when it goes on by itself.
      yield* Effect.yieldNow
      const exit = yield* Effect.exit(scope.cancel(gone))
      expect(exit).toMatchObject({ _tag: "Failure" })
      expect(yield* Fiber.join(fiber)).toMatchObject({ _tag: "Cancelled" })
      expect(ended).toEqual(["work"])
    })
  )
})

describe("log lines", () => {
  const cancelled = <R>(cleanup: Effect.Effect<unknown, never, R>) =>
    CancelScope.run((scope) => Effect.ensuring(Effect.andThen(scope.cancel(gone), Effect.never), cleanup))

  it.effect("of bounded clean-up say why the work was cancelled, and keep their own annotations", () =>
    Effect.gen(function* () {
      const { logger, seen } = lines()
      const log = Effect.log("closing")
      yield* cancelled(bounded(log)).pipe(
        Effect.annotateLogs("other", 1),
        Effect.provide(Logger.layer([logger]))
      )
      yield* bounded(log).pipe(Effect.provide(Logger.layer([logger])))
      expect(seen).toEqual([
        ["closing", "ClientGone", 1],
        ["closing", undefined, undefined]
      ])
    })
  )

  it.effect("of any finalizer and mask do with the layer, and nothing else does", () =>
    Effect.gen(function* () {
      const { logger, seen } = lines()
      const program = Effect.gen(function* () {
        yield* Effect.log("before")
        yield* cancelled(
          Effect.andThen(
            Effect.log("in it"),
            Effect.flatMap(Effect.forkChild(Effect.log("forked")), Fiber.join)
          )
        )
        yield* Effect.log("after")
      })
      yield* program.pipe(Effect.provide(CancelLogs.layer), Effect.provide(Logger.layer([logger])))
      expect(seen.map(([message, reason]) => [message, reason])).toEqual([
        ["before", undefined],
        ["in it", "ClientGone"],
        ["forked", "ClientGone"],
        ["after", undefined]
      ])
    })
  )

  it.effect("of Curfew itself do: what is unhandled, clean-up and tasks that are left behind", () =>
    Effect.gen(function* () {
      const { logger, seen } = lines()
      const program = Effect.gen(function* () {
        yield* reportUnhandled("cleanup", "pool", Cause.fail("no"), gone)
        const fiber = yield* Effect.forkChild(
          cancelled(bounded(Effect.never, { name: "pool", within: "1 second" }))
        )
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(fiber)
        const tasks = yield* Effect.forkChild(
          CancelScope.run((scope) =>
            TaskScope.use((tasks: TaskScope.TaskScope<never>) =>
              Effect.andThen(
                tasks.spawn(Effect.uninterruptible(Effect.sleep("1 hour")), { name: "upload" }),
                scope.cancel(gone)
              )
            )
          )
        )
        yield* TestClock.adjust("10 seconds")
        yield* Fiber.join(tasks)
        yield* TestClock.adjust("1 hour")
      })
      yield* program.pipe(Effect.provide(Logger.layer([logger])))
      expect(seen).toEqual([
        [
          'Nobody waited for the failure of this cleanup "pool" while it was being cancelled (ClientGone).',
          "ClientGone",
          undefined
        ],
        [
          expect.stringMatching(
            /^This finalizer "pool" overran its clean-up budget and was left behind; make it end once it is cancelled, or give it a longer budget\. It was called at .+seen\.test\.ts/
          ),
          "ClientGone",
          undefined
        ],
        [
          'This task "upload" overran its clean-up budget and was left behind; make it end once it is cancelled, or give it a longer budget.',
          "ClientGone",
          undefined
        ]
      ])
    })
  )
})

describe("metrics", () => {
  it.effect("count what was told to stop by kind and reason, once each, and not what had ended", () =>
    Effect.gen(function* () {
      yield* CancelScope.run((scope) =>
        TaskScope.use((tasks: TaskScope.TaskScope<never>) =>
          Effect.gen(function* () {
            yield* tasks.spawn(Effect.never)
            yield* tasks.spawn(Effect.never)
            yield* tasks.spawn(Effect.void)
            yield* scope.cancel(gone)
            yield* scope.cancel(CancelReason.Superseded())
            yield* Effect.never
          })
        )
      )
      // The scope's own body and the task scope's.
      expect(yield* count(cancelledTotal, { kind: "scope", reason: "ClientGone" })).toBe(2)
      expect(yield* count(cancelledTotal, { kind: "task", reason: "ClientGone" })).toBe(2)
      expect(yield* count(cancelledTotal, { kind: "scope", reason: "Superseded" })).toBe(0)
      const took = yield* Metric.value(Metric.withAttributes(cleanupMillis, { kind: "task" }))
      expect(took.count).toBe(2)
      expect(took.max).toBeLessThan(10_000)
    }).pipe(freshMetrics)
  )

  it.effect("count what is left behind and what nobody waited for, with why", () =>
    Effect.gen(function* () {
      const go = yield* Deferred.make<void>()
      const fiber = yield* Effect.forkChild(
        CancelScope.run((scope) =>
          Effect.ensuring(
            Effect.andThen(scope.cancel(gone), Effect.never),
            bounded(Deferred.await(go), { within: "1 second" })
          )
        )
      )
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(fiber)
      expect(yield* count(stuckTotal, { kind: "finalizer", reason: "ClientGone" })).toBe(1)
      yield* Deferred.succeed(go, undefined)
      yield* Effect.provide(
        Effect.flatMap(background("mail", Effect.die("no")), (task) => task.exit),
        Owner.layer()
      )
      expect(yield* count(unhandledTotal, { origin: "task", reason: "none" })).toBe(1)
    }).pipe(freshMetrics, Effect.provide(Logger.layer([])))
  )
})
