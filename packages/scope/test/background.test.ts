import { CancelReason, currentReason, outerReason } from "@curfew/reason"
import { type Cell, CurrentCell } from "@curfew/reason/CancelCell"
import { effectiveDeadlineOf } from "@curfew/reason/Outer"
import { describe, expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import type * as Tracer from "effect/Tracer"
import { held, receiver, recorder, started } from "../../../test/support/recorder.ts"
import {
  background,
  backgroundActive,
  CancelScope,
  Instant,
  Owner,
  ownerClosedTotal,
  TaskScope
} from "../src/index.ts"

const reason = CancelReason.Superseded()
const active = (name: string) =>
  Effect.map(Metric.value(Metric.withAttributes(backgroundActive, { name })), (gauge) => gauge.value)
const closedTotal = Effect.map(Metric.value(ownerClosedTotal), (counter) => counter.count)

/** An owner that is closed already, or open until the surrounding Scope ends. */
const anOwner = (closed: boolean) =>
  Effect.gen(function* () {
    const context = yield* Layer.build(Owner.layer())
    const owner = Context.get(context, Owner)
    if (closed) yield* owner.close
    return owner
  })

interface Seen {
  readonly scope: Scope.Scope | undefined
  readonly parent: string | undefined
  readonly annotations: Readonly<Record<string, unknown>>
  readonly logSpans: number
  readonly reason: Option.Option<CancelReason>
  readonly outer: Option.Option<CancelReason>
  readonly deadline: number
}

const look: Effect.Effect<Seen> = Effect.gen(function* () {
  const context = yield* Effect.context<never>()
  const span = Option.getOrUndefined(yield* Effect.option(Effect.currentSpan))
  return {
    scope: Context.getOrUndefined(context as Context.Context<Scope.Scope>, Scope.Scope),
    parent: Option.getOrUndefined(Option.map(span?.parent ?? Option.none(), (parent) => parent.spanId)),
    annotations: yield* References.CurrentLogAnnotations,
    logSpans: (yield* References.CurrentLogSpans).length,
    reason: yield* currentReason,
    outer: yield* outerReason,
    deadline: effectiveDeadlineOf((yield* CurrentCell) as Cell)
  }
})

describe("L36: nothing of the caller's is seen in the background", () => {
  for (const closed of [false, true])
    it.effect(`L36${closed ? ", L46" : ""}: ${closed ? "attached to its caller" : "under its owner"}`, () =>
      Effect.scoped(
        Effect.gen(function* () {
          const owner = yield* anOwner(closed)
          const request = yield* Effect.scope
          const gate = yield* Deferred.make<void>()
          const given = yield* Deferred.make<CancelScope.CancelScope>()
          const seen: Array<Seen> = []
          const work = Effect.gen(function* () {
            seen.push(yield* look)
            yield* Deferred.await(gate)
            seen.push(yield* look)
          })
          const deadline = yield* Instant.after("1 minute")
          const caller = yield* started(
            CancelScope.run(
              (scope) =>
                Effect.andThen(
                  Deferred.succeed(given, scope),
                  Effect.andThen(background("index", work, { owner }), Effect.never)
                ),
              { deadline }
            ).pipe(
              Effect.withSpan("request"),
              Effect.annotateLogs("request", 7),
              Effect.withLogSpan("request"),
              Effect.provideService(Owner, owner)
            )
          )
          yield* (yield* Deferred.await(given)).cancel(reason)
          if (!closed) expect(yield* Fiber.join(caller)).toMatchObject({ _tag: "Cancelled" })
          yield* Deferred.succeed(gate, undefined)
          yield* Fiber.await(caller)
          yield* owner.drain()
          expect(seen).toHaveLength(2)
          for (const one of seen) {
            expect(one.scope).toBeDefined()
            expect(one.scope).not.toBe(request)
            expect([one.parent, one.annotations, one.logSpans]).toEqual([undefined, {}, 0])
            expect(one.deadline).toBe(Number.POSITIVE_INFINITY)
            expect(one.reason).toEqual(Option.none())
          }
          // Attached work may ask outwards whether its caller still waits; owned work has no caller.
          expect(seen[1]?.outer).toEqual(closed ? Option.some(reason) : Option.none())
        })
      )
    )

  it.effect("L36: resources acquired in the work live as long as the work, not as the caller's Scope", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const owner = yield* anOwner(false)
        const { add, events } = recorder()
        const { gate, work } = held()
        const uses = Effect.andThen(
          Effect.acquireRelease(add("acquired"), () => add("released")),
          Effect.andThen(work, add("used"))
        )
        yield* Effect.scoped(background("index", uses, { owner })).pipe(Effect.provideService(Owner, owner))
        yield* add("caller left")
        yield* Deferred.succeed(gate, undefined)
        yield* owner.drain()
        expect(events).toEqual(["acquired", "caller left", "used", "released"])
      })
    )
  )

  it.effect("L36: the spans are linked both ways and the work's is a root", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const owner = yield* anOwner(false)
        const spans = yield* Effect.gen(function* () {
          const caller = yield* Effect.orDie(Effect.currentSpan)
          const task = yield* background("index", Effect.orDie(Effect.currentSpan), { owner })
          return { caller, own: yield* task.join }
        }).pipe(Effect.withSpan("request"), Effect.provideService(Owner, owner))
        expect(spans.own.name).toBe("index")
        expect(Option.isNone(spans.own.parent)).toBe(true)
        const linked = (span: Tracer.Span) => span.links.map((link) => link.span.spanId)
        expect(linked(spans.own)).toEqual([spans.caller.spanId])
        expect(linked(spans.caller)).toEqual([spans.own.spanId])
      })
    )
  )

  it.effect("L36: running work is counted by name, however it ends", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { around } = receiver()
        const owner = yield* anOwner(false)
        const gates = yield* Effect.all([Deferred.make<void>(), Deferred.make<void, string>()])
        const start = (work: Effect.Effect<void, string>) =>
          around(background("index", work, { owner })).pipe(Effect.provideService(Owner, owner))
        yield* start(Deferred.await(gates[0]))
        yield* start(Deferred.await(gates[1]))
        const stopped = yield* start(Effect.never)
        expect(yield* active("index")).toBe(3)
        yield* Deferred.succeed(gates[0], undefined)
        yield* Deferred.fail(gates[1], "no")
        yield* stopped.cancel()
        expect(yield* active("index")).toBe(0)
        expect(yield* active("other")).toBe(0)
      })
    ).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )
})

describe("the quartet of background", () => {
  it.effect(
    "its caller cancelled before, during, after and twice: the work goes on; cancelled itself it ends",
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const owner = yield* anOwner(false)
          const { add, events, never } = recorder()
          yield* CancelScope.run((scope) =>
            Effect.uninterruptible(
              Effect.andThen(scope.cancel(reason), background("masked", add("ran"), { owner }))
            )
          ).pipe(Effect.provideService(Owner, owner))
          expect(events).toEqual(["ran"])
          const task = yield* background("never", never("stopped"), { owner }).pipe(
            Effect.provideService(Owner, owner)
          )
          expect([yield* task.cancel(reason), yield* task.cancel(reason)]).toEqual([true, false])
          expect(events).toEqual(["ran", "stopped"])
        })
      )
  )

  it.effect("the owner's cancel reaches it with the owner's reason", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const owner = yield* anOwner(false)
        const seen: Array<unknown> = []
        yield* background(
          "index",
          Effect.onExit(Effect.never, () => Effect.map(currentReason, (why) => seen.push(why))),
          { owner }
        ).pipe(Effect.provideService(Owner, owner))
        yield* owner.cancel(reason)
        expect(seen).toEqual([Option.some(reason)])
      })
    )
  )

  it.effect("L26: a failure is told once", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { around, seen } = receiver()
        for (const closed of [false, true]) {
          const owner = yield* anOwner(closed)
          const task = yield* around(background("index", Effect.fail("no"), { owner })).pipe(
            Effect.provideService(Owner, owner)
          )
          expect(yield* Effect.flip(task.join)).toBe("no")
        }
        expect(seen.map((one) => [one.origin, one.name])).toEqual([
          ["task", "index"],
          ["task", "index"]
        ])
      })
    )
  )
})

describe("L46: a closed owner takes no work", () => {
  it.effect("L46: it runs attached to its caller, to its end, and is counted once", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const owner = yield* anOwner(true)
        const { gate, work } = held()
        const { add, events } = recorder()
        const caller = yield* started(
          Effect.flatMap(
            background("index", Effect.andThen(work, add("done")), { owner }),
            (task) => task.status
          ).pipe(Effect.provideService(Owner, owner))
        )
        expect(caller.pollUnsafe()).toBeUndefined()
        caller.interruptUnsafe()
        expect(caller.pollUnsafe()).toBeUndefined()
        expect(yield* owner.size).toBe(0)
        yield* Deferred.succeed(gate, undefined)
        expect((yield* Fiber.await(caller))._tag).toBe("Failure")
        expect(events).toEqual(["done"])
        expect(yield* closedTotal).toBe(1)
        const ended = yield* background("index", Effect.succeed(3), { owner }).pipe(
          Effect.provideService(Owner, owner)
        )
        expect([yield* ended.status, yield* ended.join, yield* closedTotal]).toEqual(["ended", 3, 2])
      })
    ).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )

  it.effect("L46: a cancelled task scope as owner refuses like a closed one", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const owner = yield* TaskScope.make()
        yield* owner.cancel(reason)
        const task = yield* background("index", Effect.succeed(3), { owner }).pipe(
          Effect.provideService(Owner, owner)
        )
        expect(yield* task.exit).toEqual(Exit.succeed(3))
      })
    )
  )
})
