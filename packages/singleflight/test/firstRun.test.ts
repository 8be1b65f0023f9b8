/** A run has no cell in its first run until somebody looks. */
import { CancelReason } from "@curfew/reason"
import { type Cell, childrenOf, rootsUnsafe } from "@curfew/reason/CancelCell"
import { CancelScope, Owner, ownerClosedTotal, TaskScope } from "@curfew/scope"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Scope from "effect/Scope"
import { expect, test } from "vitest"
import { Shared } from "../src/index.ts"

const kinds = (cells: ReadonlyArray<Cell>): ReadonlyArray<string> =>
  cells.flatMap((cell) => [cell.kind, ...kinds(childrenOf(cell))])

const owned = <A, E>(work: Effect.Effect<A, E, Owner>): A =>
  Effect.runSync(Effect.provide(work, Owner.layer()) as Effect.Effect<A>)

test("a run that looks at the live tree in its first run finds itself there", () => {
  const seen = owned(
    Effect.flatMap(
      Shared.make(Effect.sync(() => kinds(rootsUnsafe()))),
      ({ get }) => get as Effect.Effect<never>
    )
  )
  expect(seen).toContain("shared")
  expect(kinds(rootsUnsafe())).not.toContain("shared")
})

test("a run that is cancelled in its first run ends there, and its observer is told why", () => {
  const log: Array<string> = []
  const reason = CancelReason.Superseded()
  const told = owned(
    Effect.gen(function* () {
      const shared: Shared.Shared<unknown, unknown> = yield* Shared.make(
        Effect.onInterrupt(
          Effect.suspend(() => Effect.andThen(shared.cancel(reason), Effect.never)),
          () => Effect.sync(() => log.push("cleaned up"))
        )
      )
      return yield* Effect.flip(shared.get)
    })
  )
  expect(told).toMatchObject({ _tag: "SharedCancelled", reason })
  expect(log).toEqual(["cleaned up"])
})

test("L30: who is cancelled together with a run in its first run ends by that alone", () => {
  const reason = CancelReason.Superseded()
  const outcome = owned(
    CancelScope.run((scope) =>
      Effect.gen(function* () {
        const shared: Shared.Shared<unknown, unknown> = yield* Shared.make(
          Effect.suspend(() => {
            Effect.runSync(Effect.andThen(shared.cancel(reason), scope.cancel(reason)))
            return Effect.never
          })
        )
        return yield* shared.get
      })
    )
  )
  expect(outcome).toEqual({ _tag: "Cancelled", reason })
})

test("a failure of a run that cancels its observer in its first run is the observer's", () => {
  const exit = owned(
    Effect.exit(
      CancelScope.run((scope) =>
        Effect.flatMap(
          Shared.make(Effect.andThen(scope.cancel(), Effect.fail("broken"))),
          ({ get }) => get as Effect.Effect<never>
        )
      )
    )
  )
  expect(exit).toEqual(Exit.fail("broken"))
})

test("a run that waits for itself in its first run is told so", () => {
  const exit = owned(
    Effect.gen(function* () {
      const shared: Shared.Shared<unknown, unknown> = yield* Shared.make(Effect.suspend(() => shared.get))
      return yield* Effect.exit(shared.get)
    })
  )
  expect(JSON.stringify(exit)).toContain("SharedSelfWait")
})

test("a run that asks for its scope has one, which closes before its observer is told", () => {
  const log: Array<string> = []
  const told = owned(
    Effect.gen(function* () {
      const { get } = yield* Shared.make(
        Effect.acquireRelease(
          Effect.sync(() => log.push("opened")),
          () => Effect.sync(() => log.push("closed"))
        )
      )
      yield* Effect.tap(get, () => Effect.sync(() => log.push("told")))
      return yield* get
    })
  )
  expect(told).toBe(4)
  expect(log).toEqual(["opened", "closed", "told", "opened", "closed"])
})

test("a run that asks for its scope after it has waited has one as well", async () => {
  const log: Array<string> = []
  const release = (scope: Scope.Scope) =>
    Scope.addFinalizer(
      scope,
      Effect.sync(() => log.push("closed"))
    )
  const program = Effect.gen(function* () {
    const { get } = yield* Shared.make(Effect.andThen(Effect.yieldNow, Effect.flatMap(Scope.Scope, release)))
    yield* get
    log.push("told")
  })
  await Effect.runPromise(Effect.provide(program, Owner.layer()))
  expect(log).toEqual(["closed", "told"])
})

test("what closing its scope fails with is the exit of a run that ended at once", () => {
  const broken = new Error("no close")
  const exit = owned(
    Effect.flatMap(Shared.make(Effect.addFinalizer(() => Effect.die(broken))), ({ get }) => Effect.exit(get))
  )
  expect(exit).toEqual(Exit.die(broken))
})

test("L46: a run that ends at once under a closed owner is its observer's, who has the exit", () => {
  const closed = Effect.runSync(Metric.value(ownerClosedTotal)).count
  const told = Effect.runSync(
    Effect.gen(function* () {
      const scope = Scope.makeUnsafe()
      const owner = yield* Scope.provide(TaskScope.make(), scope)
      const { get } = yield* Shared.make(
        Effect.sync(() => "value"),
        { owner }
      )
      yield* Scope.close(scope, Exit.void)
      return [yield* get, yield* get]
    })
  )
  expect(told).toEqual(["value", "value"])
  expect(Effect.runSync(Metric.value(ownerClosedTotal)).count).toBe(closed + 2)
})

test("a run that interrupts its only observer in its first run goes on to its end", () => {
  const log: Array<string> = []
  owned(
    Effect.gen(function* () {
      const observer: { fiber?: Fiber.Fiber<unknown, unknown> } = {}
      const { get } = yield* Shared.make(
        Effect.sync(() => {
          observer.fiber?.interruptUnsafe()
          log.push("ended")
        })
      )
      const waits = Effect.withFiber((fiber) => {
        observer.fiber = fiber
        return Effect.onInterrupt(Effect.andThen(get, Effect.never), () =>
          Effect.sync(() => log.push("left"))
        )
      })
      const waiting = yield* Effect.forkChild(waits, { startImmediately: true })
      yield* Fiber.await(waiting)
    })
  )
  expect(log).toEqual(["ended", "left"])
})
