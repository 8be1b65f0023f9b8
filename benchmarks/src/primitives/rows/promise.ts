import { EventEmitter } from "node:events"
import {
  cancelScope,
  checkpoint,
  clientGone,
  delayCancellation,
  failAfter,
  gather,
  moveOnAfter,
  onCancel,
  owner,
  promiseSettled,
  settled,
  shared,
  sharedMap,
  stopCancellation,
  withCancelScope
} from "@curfew/promise"
import * as acx from "abort-controller-x"
import * as Cache from "effect/Cache"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Scope from "effect/Scope"
import pMap from "p-map"
import pMemoize from "p-memoize"
import pTimeout from "p-timeout"
import { effects, promises } from "../batches.ts"
import { least, library, ours, type Primitive, plain, raw } from "../primitive.ts"
import { isResult, result } from "./work.ts"

const now = { startImmediately: true } as const
const work = async (): Promise<number> => result
const never = new AbortController().signal
const minute = () => "1 minute" as const
const many = 10

/** A promise of a signal as an effect, and an effect as a promise. */
const effect = Effect.tryPromise(work)
const run = <A, E>(program: Effect.Effect<A, E>): Promise<A> => Effect.runPromise(program)
const wrong = () => {
  throw new Error("A wrong result: nothing was cancelled.")
}

/** The work is not called inside the start of a fiber, and its end is waited for, whoever cancels. */
const awaited = (called: (signal: AbortSignal) => Promise<number>): Effect.Effect<number, unknown> =>
  Effect.callback((resume) => {
    const controller = new AbortController()
    const settled = Promise.resolve()
      .then(() => called(controller.signal))
      .then(
        (value) => resume(Effect.succeed(value)),
        (error) => resume(Effect.fail(error))
      )
    return Effect.andThen(
      Effect.sync(() => controller.abort()),
      Effect.promise(() => settled)
    )
  })

/** A scope of promises: the body starts work in it, and all of it has ended before the scope does. */
const supervised: Effect.Effect<number, unknown> = Effect.scoped(
  Effect.gen(function* () {
    const set = yield* FiberSet.make<number, unknown>()
    const body = yield* FiberSet.run(
      set,
      awaited(() => Effect.runPromise(Effect.flatMap(FiberSet.run(set, awaited(work), now), Fiber.join))),
      now
    )
    const value = yield* Fiber.join(body)
    yield* FiberSet.awaitEmpty(set)
    return value
  })
)

/** A scope that somebody holds: opened by one call, worked in by another, and left by a third, which waits for what runs. */
const held = async (): Promise<number> => {
  const scope = Scope.makeUnsafe()
  const set = Effect.runSync(Scope.provide(FiberSet.make<number, unknown>(), scope))
  try {
    return await run(Fiber.join(Effect.runSync(FiberSet.run(set, awaited(work), now))))
  } finally {
    await run(Effect.andThen(FiberSet.awaitEmpty(set), Scope.close(scope, Exit.void)))
  }
}

const areResults = (values: ReadonlyArray<unknown>): boolean =>
  values.length === many && values[many - 1] === result

export const rows: ReadonlyArray<Primitive> = [
  {
    row: "promise: settled",
    ours: ours(() => promises(() => settled(work), isResult)),
    peers: [
      raw("runPromise of tryPromise", () => promises(() => run(Effect.uninterruptible(effect)), isResult)),
      library("abort-controller-x: execute", () =>
        promises(
          () =>
            acx.execute<number>(never, (resolve, reject) => {
              work().then(resolve, reject)
              return () => undefined
            }),
          isResult
        )
      )
    ]
  },
  {
    row: "promise: promiseSettled",
    ours: ours(() => effects(() => promiseSettled(work), isResult)),
    peers: [raw("tryPromise", () => effects(() => Effect.tryPromise(work), isResult))],
    limit: least("the same with a signal, called in a turn of its own and awaited when it is aborted", () =>
      effects(() => awaited(work), isResult)
    )
  },
  {
    row: "promise: cancelScope, run, disposed",
    ours: ours(() =>
      promises(async () => {
        await using scope = cancelScope()
        return await scope.run(work)
      }, isResult)
    ),
    peers: [
      raw("runPromise of scoped, FiberSet, FiberSet.run", () =>
        promises(
          () =>
            run(
              Effect.scoped(
                Effect.flatMap(FiberSet.make<number, unknown>(), (set) =>
                  Effect.flatMap(FiberSet.run(set, effect, now), Fiber.join)
                )
              )
            ),
          isResult
        )
      ),
      library("abort-controller-x: run", () =>
        promises(async () => {
          let value = 0
          const stop = acx.run(async () => {
            value = await work()
          })
          await Promise.resolve()
          await stop()
          return value
        }, isResult)
      )
    ],
    limit: least(
      "a Scope with a FiberSet that is held open, worked in with a signal, emptied and closed",
      () => promises(held, isResult)
    )
  },
  {
    row: "promise: withCancelScope, spawn and join",
    ours: ours(() => promises(() => withCancelScope((scope) => scope.spawn(work).join), isResult)),
    peers: [
      raw("runPromise of scoped, forkScoped, Fiber.join", () =>
        promises(
          () => run(Effect.scoped(Effect.flatMap(Effect.forkScoped(effect, now), Fiber.join))),
          isResult
        )
      ),
      library("abort-controller-x: spawn, fork", () =>
        promises(() => acx.spawn(never, (_, { fork }) => fork(work).join()), isResult)
      )
    ],
    limit: least("a FiberSet that waits for a body and for what it forks, each with a signal", () =>
      promises(() => run(supervised), isResult)
    )
  },
  {
    row: "promise: failAfter",
    ours: ours(() => promises(() => failAfter(work, 10_000), isResult)),
    peers: [
      raw("runPromise of timeout", () => promises(() => run(Effect.timeout(effect, 10_000)), isResult)),
      library("p-timeout", () => promises(() => pTimeout(work(), { milliseconds: 10_000 }), isResult))
    ]
  },
  {
    row: "promise: moveOnAfter",
    ours: ours(() => promises(() => moveOnAfter(work, 10_000), isResult)),
    peers: [
      raw("runPromise of timeoutOption", () =>
        promises(
          () => run(Effect.timeoutOption(effect, 10_000)),
          (value) => value._tag === "Some" && value.value === result
        )
      ),
      library("p-timeout with a fallback", () =>
        promises(() => pTimeout(work(), { milliseconds: 10_000, fallback: () => 0 }), isResult)
      )
    ]
  },
  {
    row: "promise: delayCancellation",
    ours: ours(() => promises(() => delayCancellation(work), isResult)),
    peers: [
      raw("runPromise of uninterruptibleMask, forkChild, Fiber.join", () =>
        promises(
          () =>
            run(
              Effect.uninterruptibleMask((restore) =>
                Effect.flatMap(Effect.forkChild(restore(effect), now), Fiber.join)
              )
            ),
          isResult
        )
      )
    ]
  },
  {
    row: "promise: stopCancellation",
    ours: ours(() => promises(() => stopCancellation(work), isResult)),
    peers: [
      raw("runPromise of forkDetach, Fiber.join", () =>
        promises(() => run(Effect.flatMap(Effect.forkDetach(effect, now), Fiber.join)), isResult)
      )
    ]
  },
  {
    row: "promise: onCancel",
    ours: ours(() => promises(() => onCancel(work, wrong), isResult)),
    peers: [
      raw("runPromise of onInterrupt", () =>
        promises(() => run(Effect.onInterrupt(effect, () => Effect.sync(wrong))), isResult)
      ),
      library("abort-controller-x: catchAbortError", () =>
        promises(
          () =>
            acx.abortable(never, work()).catch((error) => {
              if (acx.isAbortError(error)) wrong()
              throw error
            }),
          isResult
        )
      )
    ]
  },
  {
    row: `promise: gather, ${many} items`,
    ours: ours(() => {
      const items = Array.from({ length: many }, () => work)
      return promises(() => gather(items), areResults)
    }),
    peers: [
      raw("runPromise of all, unbounded", () => {
        const items = Array.from({ length: many }, () => effect)
        return promises(() => run(Effect.all(items, { concurrency: "unbounded" })), areResults)
      }),
      library("abort-controller-x: all", () =>
        promises(() => acx.all(never, () => Array.from({ length: many }, work)), areResults)
      ),
      library("p-map", () => {
        const items = Array.from({ length: many }, () => work)
        return promises(() => pMap(items, (item) => item()), areResults)
      })
    ]
  },
  {
    row: `promise: gather, ${many} items, 4 at once`,
    ours: ours(() => {
      const items = Array.from({ length: many }, () => work)
      return promises(() => gather(items, { concurrency: 4 }), areResults)
    }),
    peers: [
      raw("runPromise of all, concurrency 4", () => {
        const items = Array.from({ length: many }, () => effect)
        return promises(() => run(Effect.all(items, { concurrency: 4 })), areResults)
      }),
      library("p-map, concurrency 4", () => {
        const items = Array.from({ length: many }, () => work)
        return promises(() => pMap(items, (item) => item(), { concurrency: 4 }), areResults)
      })
    ]
  },
  {
    row: "promise: shared, retained",
    ours: ours(() => {
      const one = shared(work, { retain: minute })
      return promises(() => one.get(), isResult)
    }),
    peers: [
      raw("runPromise of cachedWithTTL", async () => {
        const cached = await run(Effect.cachedWithTTL(effect, "1 minute"))
        return promises(() => run(cached), isResult)
      }),
      library("p-memoize", () => promises(pMemoize(work), isResult))
    ]
  },
  {
    row: "promise: sharedMap, retained",
    ours: ours(() => {
      const all = sharedMap(async (key: string) => key.length, { retain: minute })
      return promises(
        () => all.get("four"),
        (value) => value === 4
      )
    }),
    peers: [
      raw("runPromise of Cache.get", async () => {
        const cache = await run(
          Cache.make({
            capacity: 100,
            lookup: (key: string) => Effect.tryPromise(async () => key.length),
            timeToLive: "1 minute"
          })
        )
        return promises(
          () => run(Cache.get(cache, "four")),
          (value) => value === 4
        )
      }),
      library("p-memoize", () => {
        const get = pMemoize(async (key: string) => key.length)
        return promises(
          () => get("four"),
          (value) => value === 4
        )
      })
    ]
  },
  {
    row: "promise: shared, a new run",
    ours: ours(() => {
      const one = shared(work)
      return promises(() => one.get(), isResult)
    }),
    peers: [
      raw("runPromise of cached, made anew", () =>
        promises(() => run(Effect.flatten(Effect.cached(effect))), isResult)
      ),
      library("p-memoize, not cached", () => promises(pMemoize(work, { cache: false }), isResult))
    ]
  },
  {
    row: "promise: checkpoint",
    ours: ours(() =>
      promises(
        () => checkpoint(never),
        (value) => value === undefined
      )
    ),
    peers: [
      raw("runPromise of void with a signal", () =>
        promises(
          () => Effect.runPromise(Effect.void, { signal: never }),
          (value) => value === undefined
        )
      ),
      library("abort-controller-x: throwIfAborted", () =>
        promises(
          async () => acx.throwIfAborted(never),
          (value) => value === undefined
        )
      )
    ]
  },
  {
    row: "promise: clientGone",
    ours: ours(() =>
      promises(
        async () => clientGone(Object.assign(new EventEmitter(), { writableFinished: false })),
        (signal) => !signal.aborted
      )
    ),
    peers: [
      plain("a listener and a controller", () =>
        promises(
          async () => {
            const response = Object.assign(new EventEmitter(), { writableFinished: false })
            const controller = new AbortController()
            response.once("close", () => {
              if (!response.writableFinished) controller.abort()
            })
            return controller.signal
          },
          (signal) => !signal.aborted
        )
      )
    ]
  },
  {
    row: "promise: owner, spawn and join",
    ours: ours(() => {
      const own = owner()
      return promises(() => own.spawn(work).join, isResult)
    }),
    peers: [
      raw("runPromise of forkDetach, Fiber.join", () =>
        promises(() => run(Effect.flatMap(Effect.forkDetach(effect, now), Fiber.join)), isResult)
      )
    ]
  }
]
