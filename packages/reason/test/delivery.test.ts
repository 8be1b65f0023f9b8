/** How a cancel comes to fibers, down to those that do not look as expected, and how a body is told its end. */
import { describe, expect, it } from "@effect/vitest"
import type * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Tracer from "effect/Tracer"
import { started } from "../../../test/support/recorder.ts"
import {
  type Body,
  CancelCell,
  cancelAloneUnsafe,
  interruptsOfUnsafe,
  isMaskedUnsafe,
  learnUnsafe,
  startKnownUnsafe
} from "../src/CancelCell.ts"
import { CancelReason, cancelledTotal, cleanupMillis, fromCause } from "../src/index.ts"
import { withPending } from "../src/internal/probe.ts"

const reason = CancelReason.Requested({ message: "stop" })
const later = CancelReason.Superseded()

const reasonsOf = (fiber: Fiber.Fiber<unknown, unknown>): ReadonlyArray<unknown> => {
  const exit = fiber.pollUnsafe()
  return exit === undefined || Exit.isSuccess(exit) ? [] : exit.cause.reasons
}

const cellOf = (fiber: Fiber.Fiber<unknown, unknown>): CancelCell => {
  const cell = new CancelCell("task", {})
  cell.fiber = fiber
  return cell
}

/** What of a fiber is public, and of its fields only those named. */
const strange = (
  fiber: Fiber.Fiber<unknown, unknown>,
  fields: Record<string, unknown> = {}
): Fiber.Fiber<unknown, unknown> =>
  ({
    pollUnsafe: () => fiber.pollUnsafe(),
    interruptUnsafe: (id?: number, annotations?: Context.Context<never>) =>
      fiber.interruptUnsafe(id, annotations),
    cache: fiber.cache,
    context: fiber.context,
    ...fields
  }) as never

describe("the interrupt of a cancel", () => {
  it.effect.each([
    ["nothing behind it", {}],
    ["no evaluate", { _running: false, interruptible: true }]
  ] as const)("reaches a fiber that shows %s, by the public call and once", ([, fields]) =>
    Effect.gen(function* () {
      const fiber = yield* started(Effect.never)
      cellOf(strange(fiber, fields)).cancel(reason)
      const exit = fiber.pollUnsafe()
      expect(reasonsOf(fiber)).toHaveLength(1)
      expect(exit !== undefined && Exit.isFailure(exit) && fromCause(exit.cause)).toMatchObject({
        value: reason
      })
    })
  )

  it.effect("is not joined by another cancel's, which comes to the fiber before it has met the first", () =>
    Effect.gen(function* () {
      const fiber = yield* started(Effect.never)
      const first = cellOf(fiber)
      const second = cellOf(fiber)
      first.listen(() => second.cancel(later))
      first.cancel(reason)
      const exit = fiber.pollUnsafe()
      expect(second.reason).toBe(later)
      expect(reasonsOf(fiber)).toHaveLength(1)
      expect(exit !== undefined && Exit.isFailure(exit) && fromCause(exit.cause)).toMatchObject({
        value: reason
      })
    })
  )

  it.effect("has one cause for all the fibers that it reaches", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const whole = new CancelCell("scope", {})
      const fibers: Array<Fiber.Fiber<void>> = []
      for (let i = 0; i < 3; i++) {
        const fiber = yield* started(Effect.uninterruptible(Deferred.await(gate)))
        new CancelCell("task", { parent: whole }).fiber = fiber
        fibers.push(fiber)
      }
      whole.cancel(reason)
      const causes = new Set(fibers.map(interruptsOfUnsafe))
      yield* Deferred.succeed(gate, undefined)
      expect([causes.size, causes.has(undefined)]).toEqual([1, false])
    })
  )
})

describe("a listener", () => {
  it.effect("that comes when the cell is cancelled is not called, and not kept", () =>
    Effect.sync(() => {
      const cell = new CancelCell("scope", {})
      const heard: Array<string> = []
      cell.listen(() => heard.push("first"))
      cell.listen(() => {
        heard.push("second")
        cell.listen(() => heard.push("too late"))
      })
      cell.cancel(reason)
      cell.listen(() => heard.push("too late"))
      expect([heard, cell.listenerCount]).toEqual([["first", "second"], 0])
    })
  )
})

const start = <A, E>(
  work: Effect.Effect<A, E>,
  body: Body<A, E> | undefined,
  cell: CancelCell = new CancelCell("task", {})
) =>
  Effect.withFiber((own) => {
    learnUnsafe(own)
    const fiber = startKnownUnsafe(own.context, work, cell, body)
    if (fiber === undefined) throw new Error("a fiber has not been learned")
    return Effect.succeed(fiber)
  })

describe("a fiber that its cell knows from the start", () => {
  it.effect("runs no operation in a cancelled cell, ends for the cell's reason, and tells its body", () =>
    Effect.gen(function* () {
      const cell = new CancelCell("task", {})
      cell.cancel(reason)
      let ran = false
      const told: Array<unknown> = []
      const work = Effect.sync(() => {
        ran = true
      })
      const settle = (exit: Exit.Exit<void>): undefined => {
        told.push(Exit.isFailure(exit) ? fromCause(exit.cause) : exit)
      }
      const fiber = yield* start(work, { settle }, cell)
      expect(ran).toBe(false)
      expect(told).toMatchObject([{ value: reason }])
      expect(reasonsOf(fiber)).toHaveLength(1)
    })
  )

  it.effect("tells its body in a mask, and what the body gives is not interrupted", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const cell = new CancelCell("task", {})
      const log: Array<unknown> = []
      const settle = (exit: Exit.Exit<number>): Effect.Effect<void> => {
        log.push(exit._tag, cell.fiber !== undefined && isMaskedUnsafe(cell.fiber))
        return Effect.andThen(
          Deferred.await(gate),
          Effect.sync(() => log.push("ran"))
        )
      }
      const fiber = yield* start(Effect.succeed(1), { settle }, cell)
      fiber.interruptUnsafe()
      expect([log, fiber.pollUnsafe()]).toEqual([["Success", true], undefined])
      yield* Deferred.succeed(gate, undefined)
      expect(log).toEqual(["Success", true, "ran"])
      expect(fiber.pollUnsafe()?._tag).toBeDefined()
    })
  )

  it.effect(
    "is like any other when its body has been told: an interrupt reaches it beside its children",
    () =>
      Effect.gen(function* () {
        const ends: Array<string | undefined> = []
        for (const body of [undefined, { settle: () => Effect.void }]) {
          const gate = yield* Deferred.make<void>()
          const child = Effect.onExit(Effect.never, () => Deferred.await(gate))
          const work = Effect.asVoid(Effect.forkChild(child, { startImmediately: true }))
          const fiber = yield* start(work, body)
          // What is left to do is the child's.
          expect([fiber.pollUnsafe(), isMaskedUnsafe(fiber)]).toEqual([undefined, false])
          fiber.interruptUnsafe()
          yield* Deferred.succeed(gate, undefined)
          ends.push((yield* Fiber.await(fiber))._tag)
        }
        expect(ends[1]).toBe(ends[0])
      })
  )

  it.effect("dies of what its body throws, whatever its work has come to", () =>
    Effect.gen(function* () {
      const settle = (): never => {
        throw "broken"
      }
      for (const work of [Effect.succeed(1), Effect.fail("no")]) {
        const exit = yield* Fiber.await(yield* start<number, string>(work, { settle }))
        expect(Exit.isFailure(exit) ? exit.cause.reasons : []).toContainEqual(
          expect.objectContaining({ _tag: "Die", defect: "broken" })
        )
      }
    })
  )

  it.effect("can be had when something was looked at that has no class", () =>
    Effect.gen(function* () {
      learnUnsafe(Object.create(null))
      expect((yield* start(Effect.succeed(1), undefined)).pollUnsafe()).toEqual(Exit.succeed(1))
    })
  )
})

describe("asking for a pending interrupt", () => {
  it.effect("opens the mask where the fiber does not say", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const seen: Array<Cause.Cause<never> | undefined> = []
      const ask = withPending({} as Fiber.Fiber<unknown, unknown>, (pending) =>
        Effect.sync(() => seen.push(pending))
      )
      const fiber = yield* started(Effect.uninterruptible(Effect.andThen(Deferred.await(gate), ask)))
      cellOf(fiber).cancel(reason)
      yield* Deferred.succeed(gate, undefined)
      expect(seen.map((cause) => cause && fromCause(cause))).toMatchObject([{ value: reason }])
    })
  )
})

describe("a cancel of work that runs in a span", () => {
  const cancelled = (tracer: Tracer.Tracer) =>
    Effect.gen(function* () {
      const work = Effect.withSpan(Effect.never, "work")
      const cell = cellOf(yield* started(Effect.provideService(work, Tracer.Tracer, tracer)))
      const series = Metric.withAttributes(cancelledTotal, { kind: "task", reason: "Requested" })
      let thrown: unknown
      try {
        cell.cancel(reason)
      } catch (error) {
        thrown = error
      }
      return { thrown, count: (yield* Metric.value(series)).count }
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))

  const tracerOf = (event: () => void): Tracer.Tracer =>
    Tracer.make({
      span: (options) => {
        const span = new Tracer.NativeSpan(options)
        span.event = event
        return span
      }
    })

  it.effect("is told to the span and counted", () =>
    Effect.gen(function* () {
      let events = 0
      const seen = yield* cancelled(tracerOf(() => events++))
      expect([seen, events]).toEqual([{ thrown: undefined, count: 1 }, 1])
    })
  )

  it.effect("is counted, too, when the span throws at it", () =>
    Effect.gen(function* () {
      const seen = yield* cancelled(
        tracerOf(() => {
          throw "no event"
        })
      )
      expect(seen).toEqual({ thrown: "no event", count: 1 })
    })
  )
})

describe("a cancel of work that has no fiber", () => {
  it.effect("is counted once, and so is its end", () =>
    Effect.gen(function* () {
      const context = yield* Effect.context<never>()
      const cell = new CancelCell("task", {})
      const seen = Effect.all([
        Metric.value(Metric.withAttributes(cancelledTotal, { kind: "task", reason: "Requested" })),
        Metric.value(Metric.withAttributes(cleanupMillis, { kind: "task" }))
      ]).pipe(Effect.map(([cancelled, cleanup]) => [cancelled.count, cleanup.count, cleanup.sum]))
      cancelAloneUnsafe(cell, reason, context)
      expect([cell.reason, yield* seen]).toEqual([reason, [1, 1, 0]])
      cancelAloneUnsafe(cell, later, context)
      expect([cell.reason, yield* seen]).toEqual([reason, [1, 1, 0]])
      cell.unlink()
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )
})
