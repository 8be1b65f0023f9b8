/** L2: in which order a cancel reaches what stands below it. */
import { CancelReason } from "@curfew/reason"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as fc from "fast-check"
import { recorder, started } from "../../../test/support/recorder.ts"
import { runs } from "../../../test/support/seed.ts"
import { CancelScope, TaskScope } from "../src/index.ts"

const reason = CancelReason.Superseded()
type Tasks = TaskScope.TaskScope

/** A program as a tree: what stands around its leaves. The leaves wait. */
interface Tree {
  readonly kind: "scope" | "tasks" | "leaf"
  readonly below: ReadonlyArray<Tree>
}

const leaf: Tree = { kind: "leaf", below: [] }
const { tree } = fc.letrec<{ tree: Tree }>((tie) => ({
  tree: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    fc.constant(leaf),
    fc.record({
      kind: fc.constantFrom("scope" as const, "tasks" as const),
      below: fc.array(tie("tree"), { minLength: 1, maxLength: 3 })
    })
  )
}))

/** Runs a tree; every leaf's finalizer checks that all leaves have been signalled before it ran. */
const planted = (
  root: Tree,
  onLeaf: (signal: () => boolean) => Effect.Effect<never>
): Effect.Effect<unknown, unknown> => {
  const go = (node: Tree): Effect.Effect<unknown, unknown> => {
    if (node.kind === "leaf")
      return CancelScope.run((scope) => {
        const { signal } = scope
        return onLeaf(() => signal.aborted)
      })
    if (node.kind === "scope") return CancelScope.run(() => all(node.below))
    return all(node.below)
  }
  const all = (nodes: ReadonlyArray<Tree>) =>
    TaskScope.use((tasks: Tasks) =>
      Effect.andThen(
        Effect.forEach(nodes, (node) => tasks.spawn(go(node)), { discard: true }),
        Effect.never
      )
    )
  return go(root)
}

describe("L2: one turn, downwards only, before any finalizer", () => {
  it.effect(
    "L2: in every tree of scopes and tasks all leaves are signalled before the first finalizer runs",
    () =>
      Effect.promise(() =>
        fc.assert(
          fc.asyncProperty(tree, async (root) => {
            const signals: Array<() => boolean> = []
            const violations: Array<string> = []
            let stopped = 0
            const given: { scope?: CancelScope.CancelScope } = {}
            const program = CancelScope.run((scope) => {
              given.scope = scope
              return planted(root, (signal) => {
                signals.push(signal)
                return Effect.onExit(Effect.never, () =>
                  Effect.sync(() => {
                    stopped++
                    if (signals.some((aborted) => !aborted())) violations.push("a finalizer ran too early")
                  })
                )
              })
            })
            const fiber = Effect.runFork(program)
            await Effect.runPromise(given.scope?.cancel(reason) ?? Effect.void)
            const outcome = await Effect.runPromise(Fiber.join(fiber))
            expect(outcome).toEqual({ _tag: "Cancelled", reason })
            expect(violations).toEqual([])
            expect(stopped).toBe(signals.length)
          }),
          runs(50)
        )
      )
  )

  it.effect("L2: a task that another one's finalizer wakes does not run on", () =>
    Effect.gen(function* () {
      const { add, events } = recorder()
      const gate = yield* Deferred.make<void>()
      const fiber = yield* started(
        CancelScope.run((scope) =>
          TaskScope.use((tasks: Tasks) =>
            Effect.gen(function* () {
              yield* tasks.spawn(
                Effect.onExit(Effect.never, () =>
                  Effect.andThen(add("first ends"), Deferred.succeed(gate, undefined))
                )
              )
              yield* tasks.spawn(
                Effect.onExit(Effect.andThen(Deferred.await(gate), add("second ran on")), () =>
                  add("second ends")
                )
              )
              yield* scope.cancel(reason)
            })
          )
        )
      )
      yield* Fiber.await(fiber)
      expect(events).toEqual(["first ends", "second ends"])
    })
  )

  it.effect("L2: the body of a scope that a task's finalizer wakes does not run on", () =>
    Effect.gen(function* () {
      const { add, events } = recorder()
      const gate = yield* Deferred.make<void>()
      const given = yield* Deferred.make<CancelScope.CancelScope>()
      const fiber = yield* started(
        CancelScope.run((scope) =>
          TaskScope.use((tasks: Tasks) =>
            Effect.gen(function* () {
              yield* tasks.spawn(Effect.onExit(Effect.never, () => Deferred.succeed(gate, undefined)))
              yield* Deferred.succeed(given, scope)
              yield* CancelScope.run(() => Effect.andThen(Deferred.await(gate), add("body ran on")))
              yield* add("outer body ran on")
            })
          )
        )
      )
      yield* (yield* Deferred.await(given)).cancel(reason)
      yield* Fiber.await(fiber)
      expect(events).toEqual([])
    })
  )

  it.effect("L2: a listener that a cancel calls finds every interrupt pending", () =>
    Effect.gen(function* () {
      const { add, events } = recorder()
      const gate = Deferred.makeUnsafe<void>()
      const fiber = yield* started(
        CancelScope.run((scope) => {
          scope.signal.addEventListener("abort", () => Deferred.doneUnsafe(gate, Effect.void))
          return TaskScope.use((tasks: Tasks) =>
            Effect.gen(function* () {
              yield* tasks.spawn(Effect.andThen(Deferred.await(gate), add("ran on")))
              yield* scope.cancel(reason)
            })
          )
        })
      )
      yield* Fiber.await(fiber)
      expect(events).toEqual([])
    })
  )

  it.effect("L2: a cancel never goes upward or sideways", () =>
    Effect.gen(function* () {
      const { events, never } = recorder()
      const inner = yield* Deferred.make<CancelScope.CancelScope>()
      const outer = yield* Deferred.make<CancelScope.CancelScope>()
      const fiber = yield* started(
        CancelScope.run((top) =>
          TaskScope.use((tasks: Tasks) =>
            Effect.gen(function* () {
              yield* Deferred.succeed(outer, top)
              yield* tasks.spawn(never("neighbour"))
              yield* tasks.spawn(
                CancelScope.run((own) => Effect.andThen(Deferred.succeed(inner, own), never("inner")))
              )
              yield* Effect.never
            })
          )
        )
      )
      yield* (yield* Deferred.await(inner)).cancelAndWait(reason)
      expect(events).toEqual(["inner"])
      expect((yield* Deferred.await(outer)).signal.aborted).toBe(false)
      yield* (yield* Deferred.await(outer)).cancel(reason)
      expect(yield* Fiber.join(fiber)).toEqual({ _tag: "Cancelled", reason })
    })
  )
})
