/**
 * Scenes with a size: ten thousand tasks, a thousand waiters. One operation is a task or a waiter. Everybody waits for a
 * callback of his own, so that no scene measures how somebody's list of waiters forgets one of them.
 */
import { sharedMap } from "@curfew/promise"
import { Owner, TaskScope } from "@curfew/scope"
import { SharedMap } from "@curfew/singleflight"
import * as acx from "abort-controller-x"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Scope from "effect/Scope"
import * as Effection from "effection"
import type { Batch } from "../batches.ts"
import { least, library, ours, type Primitive, plain, raw } from "../primitive.ts"
import { result } from "./work.ts"

const now = { startImmediately: true } as const
const tasks = 10_000
const waiters = 1_000
const lookups = 20

interface Ends {
  readonly cleaned: number
  readonly cancelled: number
  readonly done: number
}

const checked = ({ cancelled, cleaned, done }: Ends, all: number): void => {
  if (cleaned !== all || cancelled !== all / 2 || done !== all / 2)
    throw new Error(`A wrong result: of ${all}, ${cleaned} cleaned up, ${cancelled} cancelled, ${done} done.`)
}

/** Ten thousand of anything that is spawned, cancelled, and has an exit. */
const effectScene =
  <T, E = never>(
    spawn: (work: Effect.Effect<number>) => Effect.Effect<T, E>,
    cancel: (task: T) => Effect.Effect<unknown>,
    exit: (task: T) => Effect.Effect<Exit.Exit<number>>
  ): ((all: number) => Effect.Effect<void, E>) =>
  (all) =>
    Effect.gen(function* () {
      const resumes: Array<() => void> = []
      const ends = { cleaned: 0, cancelled: 0, done: 0 }
      const work = Effect.ensuring(
        Effect.callback<number>((resume) => {
          resumes.push(() => resume(Effect.succeed(result)))
        }),
        Effect.sync(() => {
          ends.cleaned++
        })
      )
      const spawned: Array<T> = []
      for (let i = 0; i < all; i++) spawned.push(yield* spawn(work))
      for (let i = 0; i < all; i += 2) yield* cancel(spawned[i] as T)
      for (let i = 1; i < all; i += 2) resumes[i]?.()
      for (const task of spawned) {
        const { _tag } = yield* exit(task)
        if (_tag === "Success") ends.done++
        else ends.cancelled++
      }
      checked(ends, all)
    })

const effectionScene: Batch = (all) =>
  Effection.run(function* () {
    const resumes: Array<() => void> = []
    const ends = { cleaned: 0, cancelled: 0, done: 0 }
    const spawned: Array<Effection.Task<number>> = []
    for (let i = 0; i < all; i++)
      spawned.push(
        yield* Effection.spawn(function* () {
          try {
            return yield* Effection.action<number>((resolve) => {
              resumes.push(() => resolve(result))
              return () => undefined
            })
          } finally {
            ends.cleaned++
          }
        })
      )
    // A task of effection has not begun when it has been spawned; one that has not begun has nothing to clean up.
    while (resumes.length < all) yield* Effection.sleep(0)
    for (let i = 0; i < all; i += 2) {
      yield* (spawned[i] as Effection.Task<number>).halt()
      ends.cancelled++
    }
    for (let i = 1; i < all; i += 2) resumes[i]?.()
    for (let i = 1; i < all; i += 2) if ((yield* spawned[i] as Effection.Task<number>) === result) ends.done++
    checked(ends, all)
  })

const controllerScene: Batch = (all) =>
  acx.spawn(new AbortController().signal, async (_, { fork }) => {
    const resumes: Array<() => void> = []
    const ends = { cleaned: 0, cancelled: 0, done: 0 }
    const spawned: Array<acx.ForkTask<number>> = []
    for (let i = 0; i < all; i++)
      spawned.push(
        fork(async (signal) => {
          try {
            return await acx.execute<number>(signal, (resolve) => {
              resumes.push(() => resolve(result))
              return () => undefined
            })
          } finally {
            ends.cleaned++
          }
        })
      )
    for (let i = 0; i < all; i += 2) spawned[i]?.abort()
    for (let i = 1; i < all; i += 2) resumes[i]?.()
    for (const task of spawned)
      try {
        if ((await task.join()) === result) ends.done++
      } catch (error) {
        acx.rethrowAbortError(error instanceof acx.AbortError ? undefined : error)
        ends.cancelled++
      }
    checked(ends, all)
  })

/** A promise that ends with its signal, and forgets it when it ends. */
const abortable = <A>(signal: AbortSignal, start: (resolve: (value: A) => void) => void): Promise<A> =>
  new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason)
    signal.addEventListener("abort", abort, { once: true })
    start((value) => {
      signal.removeEventListener("abort", abort)
      resolve(value)
    })
  })

const promiseScene: Batch = async (all) => {
  const resumes: Array<() => void> = []
  const ends = { cleaned: 0, cancelled: 0, done: 0 }
  const work = async (signal: AbortSignal): Promise<number> => {
    try {
      return await abortable<number>(signal, (resolve) => resumes.push(() => resolve(result)))
    } finally {
      ends.cleaned++
    }
  }
  const controllers: Array<AbortController> = []
  const spawned: Array<Promise<number>> = []
  for (let i = 0; i < all; i++) {
    const controller = new AbortController()
    controllers.push(controller)
    spawned.push(work(controller.signal))
  }
  for (let i = 0; i < all; i += 2) controllers[i]?.abort()
  for (let i = 1; i < all; i += 2) resumes[i]?.()
  for (const { status } of await Promise.allSettled(spawned))
    if (status === "fulfilled") ends.done++
    else ends.cancelled++
  checked(ends, all)
}

/** What work can ask where it stands, and what an interrupt can say. */
class Standing extends Context.Service<Standing, object>()("benchmarks/Standing") {}
const reason = Standing.context({}) as Context.Context<never>

/** A lookup that ends when it is told to. */
const lookingUp = () => {
  let resume: (effect: Effect.Effect<number>) => void = () => undefined
  const work = Effect.callback<number>((own) => {
    resume = own
  })
  return { work, answer: () => resume(Effect.succeed(result)) }
}

const waiting = (
  times: number,
  make: (work: Effect.Effect<number>) => Effect.Effect<(key: string) => Effect.Effect<number, unknown>>
): Effect.Effect<void> =>
  Effect.gen(function* () {
    for (let round = 0; round < times / waiters; round++) {
      const { answer, work } = lookingUp()
      const get = yield* make(work)
      const fibers: Array<Fiber.Fiber<number, unknown>> = []
      for (let i = 0; i < waiters; i++) fibers.push(yield* Effect.forkChild(get("key"), now))
      for (let i = 1; i < waiters; i += 2) fibers[i]?.interruptUnsafe()
      answer()
      const ends = { cleaned: 0, cancelled: 0, done: 0 }
      for (const fiber of fibers) {
        const exit = yield* Fiber.await(fiber)
        ends.cleaned++
        if (exit._tag === "Failure") ends.cancelled++
        else if (exit.value === result) ends.done++
      }
      checked(ends, waiters)
    }
  })

/** Waiters that are promises, each with a signal; those at odd places leave. */
const leaving = async (
  times: number,
  make: () => {
    readonly get: (key: string, signal: AbortSignal) => Promise<number>
    readonly answer: () => void
  }
): Promise<void> => {
  for (let round = 0; round < times / waiters; round++) {
    const { answer, get } = make()
    const controllers = Array.from({ length: waiters }, () => new AbortController())
    const waited = Promise.allSettled(controllers.map(({ signal }) => get("key", signal)))
    for (let i = 1; i < waiters; i += 2) controllers[i]?.abort()
    answer()
    const ends = { cleaned: 0, cancelled: 0, done: 0 }
    for (const end of await waited) {
      ends.cleaned++
      if (end.status === "rejected") ends.cancelled++
      else if (end.value === result) ends.done++
    }
    checked(ends, waiters)
  }
}

/** A promise that somebody else resolves. */
const gate = () => {
  let resolve: (value: number) => void = () => undefined
  const promise = new Promise<number>((own) => {
    resolve = own
  })
  return { promise, resolve }
}

/** What somebody who leaves is told: an error of his own, with the place where that happened. */
class Left extends Error {
  readonly reason: unknown

  constructor(reason: unknown) {
    super(`The wait was given up: ${String(reason)}.`)
    this.reason = reason
  }
}

/** The same map with what nobody who waits can do without: he is known while he waits, and is told why he left. */
const knownMap = () => {
  const { promise, resolve } = gate()
  const known = new Set<object>()
  const get = (_: string, signal: AbortSignal): Promise<number> =>
    new Promise((settle, reject) => {
      const entry = { name: "key", since: performance.now() }
      known.add(entry)
      const abort = () => {
        known.delete(entry)
        reject(new Left(signal.reason))
      }
      signal.addEventListener("abort", abort, { once: true })
      promise.then((value) => {
        if (!known.delete(entry)) return
        signal.removeEventListener("abort", abort)
        settle(value)
      })
    })
  return { get, answer: () => resolve(result) }
}

/** What one writes: a map of promises, and a promise for each waiter that ends with its signal. */
const promiseMap = () => {
  const { promise, resolve } = gate()
  const lookup = () => promise
  const map = new Map<string, Promise<number>>()
  const get = (key: string, signal: AbortSignal): Promise<number> => {
    let found = map.get(key)
    if (found === undefined) {
      found = lookup().finally(() => map.delete(key))
      map.set(key, found)
    }
    const running = found
    return abortable(signal, (settle) => running.then(settle))
  }
  return { get, answer: () => resolve(result) }
}

/** Lookups that go on while somebody waits: each has a fiber of its own and a count, and the last one who leaves ends it. */
const countedMap = (work: Effect.Effect<number>) =>
  Effect.sync(() => {
    const owner = Scope.makeUnsafe()
    const runs = new Map<string, { readonly fiber: Fiber.Fiber<number>; waiting: number }>()
    const start = (key: string) =>
      Effect.map(Effect.forkIn(work, owner, now), (fiber) => {
        const run = { fiber, waiting: 0 }
        runs.set(key, run)
        return run
      })
    return (key: string): Effect.Effect<number> =>
      Effect.suspend(() => {
        const known = runs.get(key)
        return Effect.flatMap(known === undefined ? start(key) : Effect.succeed(known), (run) => {
          run.waiting++
          return Effect.onExit(Fiber.join(run.fiber), () => {
            if (--run.waiting > 0) return Effect.void
            runs.delete(key)
            return Fiber.interrupt(run.fiber)
          })
        })
      })
  })

const abortableMap = plain(
  "a map of promises, a signal for each waiter",
  () => (times) => leaving(times, promiseMap),
  1
)

export const rows: ReadonlyArray<Primitive> = [
  {
    row: "ten thousand tasks, half of them cancelled",
    per: "task",
    times: tasks,
    ours: ours(() => {
      return (all) =>
        Effect.runPromise(
          TaskScope.use((scope: TaskScope.TaskScope<never>) =>
            effectScene(
              (work) => scope.spawn(work),
              (task) => task.cancel(),
              (task) => task.exit
            )(all)
          )
        )
    }, "Curfew: TaskScope"),
    peers: [
      raw("fibers", () => {
        const scene = effectScene<Fiber.Fiber<number>>(
          (work) => Effect.forkChild(work, now),
          (fiber) => Effect.sync(() => fiber.interruptUnsafe()),
          Fiber.await
        )
        return (all) => Effect.runPromise(scene(all))
      }),
      library("effection: spawn", () => effectionScene, 20),
      library("abort-controller-x: fork", () => controllerScene, 7),
      plain("promises, an AbortController each", () => promiseScene, 1)
    ],
    limit: {
      name: "a FiberSet, an entry in the context of each, an interrupt with a reason",
      batch: () => (all) =>
        Effect.runPromise(
          Effect.scoped(
            Effect.flatMap(FiberSet.make<number>(), (set) =>
              effectScene<Fiber.Fiber<number>>(
                (work) => FiberSet.run(set, Effect.provideService(work, Standing, {}), now),
                (fiber) => Effect.sync(() => fiber.interruptUnsafe(undefined, reason)),
                Fiber.await
              )(all)
            )
          )
        )
    }
  },
  {
    row: "a lookup shared by a thousand, half of whom leave",
    per: "waiter",
    times: waiters * lookups,
    ours: ours(
      () => (times) =>
        Effect.runPromise(
          Effect.provide(
            waiting(
              times,
              (work) =>
                Effect.map(
                  SharedMap.make(() => work),
                  ({ get }) => get
                ) as Effect.Effect<(key: string) => Effect.Effect<number, unknown>>
            ),
            Owner.layer()
          )
        ),
      "Curfew: SharedMap"
    ),
    peers: [
      raw(
        "cached",
        () => (times) =>
          Effect.runPromise(
            waiting(times, (work) => Effect.map(Effect.cached(work), (cached) => () => cached))
          ),
        1
      ),
      abortableMap
    ],
    limit: least(
      "a fiber for the lookup, a count of who waits, and its interrupt by the last one who leaves",
      () => (times) => Effect.runPromise(waiting(times, countedMap))
    )
  },
  {
    row: "a lookup shared by a thousand promises, half of which leave",
    per: "waiter",
    times: waiters * lookups,
    ours: ours(
      () => (times) =>
        leaving(times, () => {
          const { promise, resolve } = gate()
          const map = sharedMap(() => promise)
          return {
            get: (key: string, signal: AbortSignal) => map.get(key, { signal }),
            answer: () => resolve(result)
          }
        }),
      "Curfew: sharedMap of promises"
    ),
    peers: [abortableMap],
    limit: least(
      "such a map that knows who waits and tells each that leaves why, in an error of his own",
      () => (times) => leaving(times, knownMap)
    )
  }
]
