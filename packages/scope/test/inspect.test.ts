/** L47: whatever is alive stands in the tree exactly once; what has ended does not. */
import { CancelReason } from "@curfew/reason"
import { CancelCell, rootsUnsafe } from "@curfew/reason/CancelCell"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import { TestClock } from "effect/testing"
import {
  background,
  bounded,
  CancelScope,
  failAfter,
  formatTree,
  inspect,
  type LiveNode,
  liveGauge,
  Owner,
  TaskScope,
  updateLiveMetrics
} from "../src/index.ts"

/** The tree as "kind name: state" with its depth. */
const shape = (nodes: ReadonlyArray<LiveNode>, depth = 0): ReadonlyArray<string> =>
  nodes.flatMap((node) => [
    `${"  ".repeat(depth)}${node.kind} ${node.name ?? "-"}: ${node.state}`,
    ...shape(node.children, depth + 1)
  ])

const shapeNow = Effect.map(inspect, (tree) => shape(tree.roots))

describe("L47: the live tree", () => {
  it.effect("L47: shows scopes, tasks and deadlines under what they hang on, once each", () =>
    Effect.gen(function* () {
      const seen = yield* CancelScope.run(
        () =>
          TaskScope.use(
            (tasks: TaskScope.TaskScope<never>) =>
              Effect.gen(function* () {
                const task = yield* tasks.spawn(Effect.never, { name: "reader" })
                const now = yield* shapeNow
                yield* task.cancel()
                return now
              }),
            { name: "workers" }
          ),
        { name: "request" }
      )
      expect(seen).toMatchObject({
        value: [
          "scope request: running",
          "  tasks workers: running",
          "    tasks workers: running",
          "      task reader: running",
          "    scope workers: running"
        ]
      })
      expect(yield* shapeNow).toEqual([])
    })
  )

  it.effect("L47: a deadline shows what is left of it", () =>
    Effect.gen(function* () {
      const tree = yield* failAfter(inspect, "10 seconds", { name: "lookup" })
      expect(formatTree(tree)).toContain('scope "lookup"  running')
      expect(formatTree(tree)).toContain("deadline in 10.0 s")
    })
  )

  it.effect(
    "L47: what was cancelled and cleans up says why, and a scope behind a mask stands beside it",
    () =>
      Effect.gen(function* () {
        const began = yield* Deferred.make<void>()
        const go = yield* Deferred.make<void>()
        const body = (scope: CancelScope.CancelScope) =>
          Effect.uninterruptible(
            Effect.andThen(
              scope.cancel(CancelReason.Superseded()),
              CancelScope.run(() => Effect.andThen(Deferred.succeed(began, undefined), Deferred.await(go)), {
                name: "inner"
              })
            )
          )
        const fiber = yield* Effect.forkChild(CancelScope.run(body, { name: "outer" }))
        yield* Deferred.await(began)
        expect(yield* shapeNow).toEqual(["scope outer: cleaning up", "  scope inner: running"])
        expect(formatTree(yield* inspect)).toContain("newer work has taken its place")
        yield* Deferred.succeed(go, undefined)
        yield* Fiber.join(fiber)
        expect(yield* shapeNow).toEqual([])
      })
  )

  it.effect("L47: stuck clean-up stands by itself, by name, until it ends", () =>
    Effect.gen(function* () {
      yield* TestClock.adjust(0)
      const go = yield* Deferred.make<void>()
      const fiber = yield* Effect.forkChild(
        CancelScope.run(() => bounded(Deferred.await(go), { within: "1 second", name: "close the pool" }))
      )
      yield* Effect.yieldNow
      expect(yield* shapeNow).toEqual(["scope -: running", "  cleanup close the pool: cleaning up"])
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(fiber)
      expect(yield* shapeNow).toEqual(["cleanup close the pool: stuck"])
      const tree = yield* inspect
      expect(tree.stuck.map((record) => record.name)).toEqual(["close the pool"])
      expect(formatTree(tree)).toContain('stuck: finalizer "close the pool" from ')
      yield* Deferred.succeed(go, undefined)
      yield* Effect.yieldNow
      expect(yield* inspect).toEqual({ roots: [], stuck: [], waitingFor: [] })
    })
  )

  it.effect("L47: an owner shows what a shutdown waits for, and what drains", () =>
    Effect.gen(function* () {
      const go = yield* Deferred.make<void>()
      const seen = yield* Effect.gen(function* () {
        const owner = yield* Owner
        yield* background("index the upload", Deferred.await(go))
        const running = yield* inspect
        yield* owner.close
        const draining = yield* shapeNow
        yield* Deferred.succeed(go, undefined)
        return { running, draining }
      }).pipe(Effect.provide(Owner.layer({ name: "server" })))
      expect(shape(seen.running.roots)).toEqual(["owner server: running", "  task index the upload: running"])
      expect(seen.running.waitingFor).toEqual(["index the upload"])
      expect(seen.draining).toEqual(["owner server: draining", "  task index the upload: running"])
      expect(formatTree(yield* inspect)).toBe("nothing is alive")
    })
  )

  it.effect(
    "L47: a shutdown waits neither for daemons, nor for what is stuck, nor for what hangs below them",
    () =>
      Effect.gen(function* () {
        const go = yield* Deferred.make<void>()
        const inner = Effect.asVoid(
          TaskScope.use((tasks: TaskScope.TaskScope) =>
            Effect.andThen(tasks.spawn(Effect.never, { name: "below" }), Effect.never)
          )
        )
        const fiber = yield* Effect.forkChild(
          TaskScope.use((tasks: TaskScope.TaskScope) =>
            Effect.gen(function* () {
              yield* tasks.daemon(inner, { name: "janitor" })
              yield* tasks.spawn(Deferred.await(go), { name: "upload" })
              yield* bounded(Deferred.await(go), { within: 0, name: "close the pool" })
            })
          )
        )
        yield* TestClock.adjust("1 second")
        const tree = yield* inspect
        expect(tree.stuck.map(({ name }) => name)).toEqual(["close the pool"])
        expect(formatTree(tree)).toContain("janitor")
        expect(tree.waitingFor).toEqual(["upload"])
        yield* Deferred.succeed(go, undefined)
        yield* Fiber.join(fiber)
      })
  )

  it.effect("L47: two hundred thousand siblings are shown and counted", () =>
    Effect.gen(function* () {
      const siblings = 200_000
      const outcome = yield* CancelScope.run(() =>
        Effect.gen(function* () {
          const top = rootsUnsafe()[0] as CancelCell
          for (let i = 0; i < siblings; i++) new CancelCell("task", { parent: top })
          yield* updateLiveMetrics
          return (yield* inspect).waitingFor.length
        })
      )
      expect(outcome).toMatchObject({ _tag: "Done", value: siblings })
      for (const cell of rootsUnsafe()) cell.unlink()
      const tasks = Metric.withAttributes(liveGauge, { kind: "task", state: "running" })
      expect((yield* Metric.value(tasks)).value).toBe(siblings)
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )

  it.effect("L47: ten thousand levels are shown without recursion", () =>
    Effect.gen(function* () {
      const nest = (depth: number): Effect.Effect<number> =>
        depth === 0
          ? Effect.map(inspect, (tree) => formatTree(tree).split("\n").length)
          : Effect.map(
              CancelScope.run(() => nest(depth - 1)),
              (outcome) => (outcome._tag === "Done" ? outcome.value : -1)
            )
      // One line each, and one that counts them.
      expect(yield* nest(10_000)).toBe(10_001)
      expect(rootsUnsafe().length).toBe(0)
    })
  )

  it.effect("L47: the metrics count what is alive by kind and state", () =>
    Effect.gen(function* () {
      const outcome = yield* CancelScope.run(() => updateLiveMetrics)
      expect(outcome._tag).toBe("Done")
      const scopes = Metric.withAttributes(liveGauge, { kind: "scope", state: "running" })
      expect((yield* Metric.value(scopes)).value).toBe(1)
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )
})
