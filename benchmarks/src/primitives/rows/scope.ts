import {
  background,
  CancelScope,
  CancelTracing,
  currentSignal,
  Owner,
  TaskScope,
  withSignal
} from "@curfew/scope"
import * as acx from "abort-controller-x"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Effection from "effection"
import { effects, operations, repeat, within } from "../batches.ts"
import { library, ours, type Primitive, raw } from "../primitive.ts"
import { bodies, isResult, result } from "./work.ts"

const now = { startImmediately: true } as const
const [, atOnce] = bodies[0] as (typeof bodies)[number]

const forkJoin = (work: Effect.Effect<number>): Effect.Effect<number> =>
  Effect.flatMap(Effect.forkChild(work, now), Fiber.join)

const plain = function* (): Effection.Operation<number> {
  yield* []
  return result
}

const outcome = (exit: Exit.Exit<number>) =>
  exit._tag === "Success"
    ? { _tag: "Done" as const, value: exit.value, cancelCalled: false }
    : { _tag: "Cancelled" as const, reason: exit.cause }

const isDone = (value: { readonly _tag: string; readonly value?: unknown }): boolean =>
  value._tag === "Done" && isResult(value.value)

/** A place in a live tree: a cancel comes down to what hangs below it, with a reason, while it is there. */
class Node {
  children: Set<Node> | undefined = undefined
  readonly parent: Node | undefined
  fiber: Fiber.Fiber<unknown, unknown> | undefined = undefined
  reason: unknown = undefined

  constructor(parent: Node | undefined) {
    this.parent = parent
    if (parent === undefined) return
    parent.children ??= new Set()
    parent.children.add(this)
  }

  cancel(reason: unknown): void {
    if (this.reason !== undefined) return
    this.reason = reason
    for (const child of this.children ?? []) child.cancel(reason)
    this.fiber?.interruptUnsafe()
  }

  end(): void {
    this.parent?.children?.delete(this)
  }
}

class Stands extends Context.Service<Stands, Node>()("benchmarks/Stands") {}

const root = new Node(undefined)

/** The least that a cancel with a reason can reach, and that gives an outcome: a fork, an entry in the context, a node. */
const standingRun = (work: Effect.Effect<number>) =>
  Effect.withFiber<ReturnType<typeof outcome>>((fiber) => {
    const above = Context.getOrElse(fiber.context, Stands, () => root)
    const node = new Node(above)
    const known = Effect.withFiber((own) => {
      node.fiber = own
      return work
    })
    return Effect.map(
      Effect.flatMap(Effect.forkChild(Effect.provideService(known, Stands, node), now), Fiber.await),
      (exit) => {
        node.end()
        return outcome(exit)
      }
    )
  })

const runs: ReadonlyArray<Primitive> = bodies.map(([name, work]) => ({
  row: `scope: CancelScope.run, ${name}`,
  ours: ours(() => effects(() => CancelScope.run(() => work), isDone)),
  limit: {
    name: "forkChild of work with an entry in its context and in a tree, Fiber.await",
    batch: () => effects(() => standingRun(work), isDone)
  },
  peers: [
    raw("forkChild, Fiber.await", () =>
      effects(() => Effect.map(Effect.flatMap(Effect.forkChild(work, now), Fiber.await), outcome), isDone)
    ),
    ...(name === "ends at once"
      ? [library("effection: scoped", () => operations(() => Effection.scoped(plain), isResult))]
      : [])
  ]
}))

const spawns: ReadonlyArray<Primitive> = bodies.map(([name, work]) => ({
  row: `scope: TaskScope spawn and join, ${name}`,
  ours: ours(() =>
    within((times) =>
      TaskScope.use((tasks: TaskScope.TaskScope<never>) =>
        repeat(times, () => Effect.flatMap(tasks.spawn(work), (task) => task.join), isResult)
      )
    )
  ),
  peers: [
    raw("forkChild, Fiber.join", () => effects(() => forkJoin(work), isResult)),
    ...(name === "ends at once"
      ? [
          library("effection: spawn", () =>
            operations(function* () {
              const task = yield* Effection.spawn(plain)
              return yield* task
            }, isResult)
          ),
          library("abort-controller-x: fork", () => async (times: number) => {
            const { signal } = new AbortController()
            await acx.spawn(signal, async (_, { fork }) => {
              for (let i = 0; i < times; i++)
                if ((await fork(async () => result).join()) !== result) throw new Error("A wrong result.")
            })
          })
        ]
      : [])
  ],
  limit: {
    name: "FiberSet.run of work with an entry in its context, Fiber.join",
    batch: () =>
      within((times) =>
        Effect.scoped(
          Effect.flatMap(FiberSet.make<number>(), (set) =>
            repeat(
              times,
              () =>
                Effect.flatMap(FiberSet.run(set, Effect.provideService(work, Standing, {}), now), Fiber.join),
              isResult
            )
          )
        )
      )
  }
}))

/** What work can ask where it stands. */
class Standing extends Context.Service<Standing, object>()("benchmarks/Standing") {}

class Tasks extends Context.Service<Tasks, FiberSet.FiberSet<unknown, unknown>>()("benchmarks/Tasks") {}

const signal = () => new AbortController().signal

export const rows: ReadonlyArray<Primitive> = [
  ...runs,
  {
    row: "scope: CancelScope.fromSignal",
    ours: ours(() => {
      const from = signal()
      return effects(
        () => Effect.scoped(Effect.map(CancelScope.fromSignal(from), (scope) => scope.signal.aborted)),
        (aborted) => !aborted
      )
    }),
    peers: [
      raw("acquireRelease of a listener and a controller", () => {
        const from = signal()
        return effects(
          () =>
            Effect.scoped(
              Effect.map(
                Effect.acquireRelease(
                  Effect.sync(() => {
                    const controller = new AbortController()
                    const abort = () => controller.abort(from.reason)
                    from.addEventListener("abort", abort, { once: true })
                    return { abort, controller }
                  }),
                  ({ abort }) => Effect.sync(() => from.removeEventListener("abort", abort))
                ),
                ({ controller }) => controller.signal.aborted
              )
            ),
          (aborted) => !aborted
        )
      })
    ]
  },
  ...spawns,
  {
    row: "scope: TaskScope spawn, cancel, exit",
    ours: ours(() =>
      within((times) =>
        TaskScope.use((tasks: TaskScope.TaskScope<never>) =>
          repeat(
            times,
            () =>
              Effect.flatMap(tasks.spawn(Effect.never), (task) => Effect.andThen(task.cancel(), task.exit)),
            (exit) => exit._tag === "Failure"
          )
        )
      )
    ),
    peers: [
      raw("forkChild, Fiber.interrupt, Fiber.await", () =>
        effects(
          () =>
            Effect.flatMap(Effect.forkChild(Effect.never, now), (fiber) =>
              Effect.andThen(Fiber.interrupt(fiber), Fiber.await(fiber))
            ),
          (exit) => exit._tag === "Failure"
        )
      ),
      library("effection: spawn, halt", () =>
        operations(
          function* () {
            const task = yield* Effection.spawn(() => Effection.suspend())
            yield* task.halt()
            return true
          },
          (ended) => ended
        )
      ),
      library("abort-controller-x: fork, abort", () => async (times: number) => {
        await acx.spawn(signal(), async (_, { fork }) => {
          for (let i = 0; i < times; i++) {
            const task = fork((own) => acx.forever(own))
            task.abort()
            const error = await task.join().catch((error: unknown) => error)
            if (!acx.isAbortError(error)) throw new Error("A wrong result.")
          }
        })
      })
    ]
  },
  {
    row: "scope: TaskScope daemon",
    ours: ours(() =>
      within((times) =>
        TaskScope.use((tasks: TaskScope.TaskScope<never>) =>
          repeat(times, () => Effect.flatMap(tasks.daemon(atOnce), (task) => task.join), isResult)
        )
      )
    ),
    peers: [raw("forkChild, Fiber.join", () => effects(() => forkJoin(atOnce), isResult))]
  },
  {
    row: "scope: TaskScope start",
    ours: ours(() =>
      within((times) =>
        TaskScope.use((tasks: TaskScope.TaskScope<never>) =>
          repeat(
            times,
            () =>
              Effect.flatMap(
                tasks.start((ready: (value: number) => Effect.Effect<void>) => ready(result)),
                ([value, task]) => Effect.as(task.join, value)
              ),
            isResult
          )
        )
      )
    ),
    peers: [
      raw("Deferred, forkChild, Deferred.await, Fiber.join", () =>
        effects(
          () =>
            Effect.suspend(() => {
              const ready = Deferred.makeUnsafe<number>()
              return Effect.flatMap(Effect.forkChild(Deferred.succeed(ready, result), now), (fiber) =>
                Effect.flatMap(Deferred.await(ready), (value) => Effect.as(Fiber.join(fiber), value))
              )
            }),
          isResult
        )
      )
    ]
  },
  {
    row: "scope: TaskScope.use with one task",
    ours: ours(() =>
      effects(
        () =>
          TaskScope.use((tasks: TaskScope.TaskScope<never>) =>
            Effect.flatMap(tasks.spawn(atOnce), (task) => task.join)
          ),
        isResult
      )
    ),
    peers: [
      raw("forkChild of scoped, forkScoped, Fiber.join", () =>
        effects(
          () => forkJoin(Effect.scoped(Effect.flatMap(Effect.forkScoped(atOnce, now), Fiber.join))),
          isResult
        )
      ),
      library("effection: scoped, spawn", () =>
        operations(
          () =>
            Effection.scoped(function* () {
              const task = yield* Effection.spawn(plain)
              return yield* task
            }),
          isResult
        )
      ),
      library("abort-controller-x: spawn, fork", () => async (times: number) => {
        const from = signal()
        for (let i = 0; i < times; i++) {
          const value = await acx.spawn(from, (_, { fork }) => fork(async () => result).join())
          if (value !== result) throw new Error("A wrong result.")
        }
      })
    ]
  },
  {
    row: "scope: TaskScope.make with one task",
    ours: ours(() =>
      effects(
        () =>
          Effect.scoped(
            Effect.flatMap(TaskScope.make(), (tasks) =>
              Effect.flatMap(tasks.spawn(atOnce), (task) => task.join)
            )
          ) as Effect.Effect<number>,
        isResult
      )
    ),
    peers: [
      raw("scoped, FiberSet.make, FiberSet.run, Fiber.join", () =>
        effects(
          () =>
            Effect.scoped(
              Effect.flatMap(FiberSet.make<number>(), (set) =>
                Effect.flatMap(FiberSet.run(set, atOnce, now), Fiber.join)
              )
            ),
          isResult
        )
      )
    ]
  },
  {
    row: "scope: background",
    ours: ours(() =>
      effects(
        () =>
          Effect.flatMap(background("row", atOnce), (task) => task.join) as Effect.Effect<
            number,
            never,
            Owner
          >,
        isResult,
        (work) => Effect.provide(work, Owner.layer())
      )
    ),
    peers: [
      raw("forkIn of scoped, withSpan; Fiber.join", () =>
        within((times) =>
          Effect.scopedWith((scope) =>
            repeat(
              times,
              () =>
                Effect.flatMap(
                  Effect.forkIn(Effect.scoped(Effect.withSpan(atOnce, "row", { root: true })), scope, now),
                  Fiber.join
                ),
              isResult
            )
          )
        )
      )
    ]
  },
  {
    row: "scope: Owner.layer",
    ours: ours(() =>
      effects(() => Effect.provide(Effect.as(Owner, result), Owner.layer(), { local: true }), isResult)
    ),
    peers: [
      raw("Layer of a FiberSet", () =>
        effects(
          () =>
            Effect.provide(Effect.as(Tasks, result), Layer.effect(Tasks, FiberSet.make()), { local: true }),
          isResult
        )
      )
    ]
  },
  {
    row: "scope: withSignal",
    ours: ours(() => effects(() => withSignal((own) => Effect.succeed(own.aborted ? 0 : result)), isResult)),
    peers: [
      raw("onInterrupt aborts a controller", () =>
        effects(
          () =>
            Effect.suspend(() => {
              const controller = new AbortController()
              return Effect.onInterrupt(Effect.succeed(controller.signal.aborted ? 0 : result), () =>
                Effect.sync(() => controller.abort())
              )
            }),
          isResult
        )
      ),
      library("effection: useAbortSignal", () =>
        operations(
          () =>
            Effection.scoped(function* () {
              const own = yield* Effection.useAbortSignal()
              return own.aborted ? 0 : result
            }),
          isResult
        )
      )
    ]
  },
  {
    row: "scope: currentSignal",
    ours: ours(() =>
      effects(() => Effect.scoped(Effect.map(currentSignal, (own) => (own.aborted ? 0 : result))), isResult)
    ),
    peers: [
      raw("scoped, acquireRelease aborts a controller", () =>
        effects(
          () =>
            Effect.scoped(
              Effect.map(
                Effect.acquireRelease(
                  Effect.sync(() => new AbortController()),
                  (controller, exit) =>
                    exit._tag === "Success" ? Effect.void : Effect.sync(() => controller.abort())
                ),
                ({ signal: own }) => (own.aborted ? 0 : result)
              )
            ),
          isResult
        )
      )
    ]
  },
  {
    row: "scope: CancelTracing, a span",
    ours: ours(() =>
      effects(
        () => Effect.withSpan(atOnce, "row"),
        isResult,
        (work) => Effect.provide(work, CancelTracing.layer)
      )
    ),
    peers: [raw("withSpan alone", () => effects(() => Effect.withSpan(atOnce, "row"), isResult))]
  }
]
