/** Many of a thing at once, in a process of its own: tasks, waiters, scopes, and fibers of raw Effect as a yardstick. */

import { PerformanceObserver } from "node:perf_hooks"
import { CancelScope, Owner, TaskScope } from "@curfew/scope"
import { SharedMap } from "@curfew/singleflight"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import { answer, collect, cpuMicros } from "../harness/child.ts"

/** `laden` are fibers of raw Effect with an entry each, which holds as much as is asked. */
export type Thing = "tasks" | "waiters" | "scopes" | "laden"

type Close = () => Promise<void>

const wrong = (what: string): never => {
  throw new Error(`A wrong result: ${what}.`)
}

const now = { startImmediately: true } as const

const tasks = async (count: number): Promise<Close> => {
  const scope = Scope.makeUnsafe()
  const set = await Effect.runPromise(Scope.provide(TaskScope.make(), scope))
  let cleaned = 0
  const work = Effect.ensuring(
    Effect.never,
    Effect.sync(() => {
      cleaned++
    })
  )
  await Effect.runPromise(
    Effect.gen(function* () {
      for (let i = 0; i < count; i++) yield* set.spawn(work)
    })
  )
  if (Effect.runSync(set.size) !== count) wrong("another number of tasks")
  return async () => {
    await Effect.runPromise(Scope.close(scope, Exit.void))
    if (cleaned !== count) wrong(`${cleaned} tasks of ${count} were cleaned up`)
  }
}

const owner = Scope.makeUnsafe()
const owned = await Effect.runPromise(Layer.buildWithScope(Owner.layer(), owner))

const waiters = async (count: number): Promise<Close> => {
  const map = await Effect.runPromise(
    Effect.provide(
      SharedMap.make((_: string) => Effect.never),
      owned
    )
  )
  const fibers = await Effect.runPromise(
    Effect.gen(function* () {
      const forked: Array<Fiber.Fiber<never, unknown>> = []
      for (let i = 0; i < count; i++) forked.push(yield* Effect.forkDetach(map.get("key"), now))
      return forked
    })
  )
  if (Effect.runSync(map.observers("key")) !== count) wrong("another number of observers")
  return async () => {
    for (const fiber of fibers) fiber.interruptUnsafe()
    await Effect.runPromise(Fiber.awaitAll(fibers))
    if (Effect.runSync(map.observers("key")) !== 0) wrong("observers that stay")
  }
}

const scopes = async (count: number): Promise<Close> => {
  const open: Array<CancelScope.CancelScope> = []
  const body = CancelScope.run((scope) => {
    open.push(scope)
    return Effect.never
  })
  const fibers = await Effect.runPromise(
    Effect.gen(function* () {
      const forked: Array<Fiber.Fiber<CancelScope.Outcome<never>>> = []
      for (let i = 0; i < count; i++) forked.push(yield* Effect.forkDetach(body, now))
      return forked
    })
  )
  if (open.length !== count) wrong("another number of scopes")
  return async () => {
    for (const scope of open) Effect.runSync(scope.cancel())
    const exits = await Effect.runPromise(Fiber.awaitAll(fibers))
    if (!exits.every((exit) => exit._tag === "Success" && exit.value._tag === "Cancelled"))
      wrong("a scope that was not cancelled")
  }
}

const fibers = async (count: number, entered: (fiber: Fiber.Fiber<never>) => void): Promise<Close> => {
  let cleaned = 0
  const work = Effect.ensuring(
    Effect.never,
    Effect.sync(() => {
      cleaned++
    })
  )
  const forked = await Effect.runPromise(
    Effect.gen(function* () {
      const all: Array<Fiber.Fiber<never>> = []
      for (let i = 0; i < count; i++) {
        const fiber = yield* Effect.forkDetach(work, now)
        all.push(fiber)
        entered(fiber)
      }
      return all
    })
  )
  return async () => {
    for (const fiber of forked) fiber.interruptUnsafe()
    await Effect.runPromise(Fiber.awaitAll(forked))
    if (cleaned !== count) wrong(`${cleaned} fibers of ${count} were cleaned up`)
  }
}

/** So large as what a primitive makes for a fiber: a header of three words, and nine fields. */
class Load {
  static readonly bytes = 8 * (3 + 9)
  readonly load: Load | undefined
  readonly a = undefined
  readonly b = undefined
  readonly c = undefined
  readonly d = undefined
  readonly e = undefined
  readonly f = undefined
  readonly g = undefined
  readonly h = undefined

  constructor(load: Load | undefined) {
    this.load = load
  }
}

/** What keeps account of fibers has an entry for each, in a list, until that ends; here with a load of so many bytes. */
class Entry {
  next: Entry | undefined = undefined
  previous: Entry | undefined = undefined
  readonly fiber: Fiber.Fiber<never>
  readonly load: Load | undefined

  constructor(fiber: Fiber.Fiber<never>, loads: number) {
    this.fiber = fiber
    let load: Load | undefined
    for (let i = 0; i < loads; i++) load = new Load(load)
    this.load = load
  }
}

const laden = async (count: number, bytes: number): Promise<Close> => {
  const loads = Math.round(bytes / Load.bytes)
  let last: Entry | undefined
  let size = 0
  const close = await fibers(count, (fiber) => {
    const entry = new Entry(fiber, loads)
    entry.previous = last
    if (last !== undefined) last.next = entry
    last = entry
    size++
    fiber.addObserver(() => {
      const { next, previous } = entry
      if (next === undefined) last = previous
      else next.previous = previous
      if (previous !== undefined) previous.next = next
      entry.next = undefined
      entry.previous = undefined
      size--
    })
  })
  return async () => {
    await close()
    if (size !== 0) wrong(`${size} fibers of ${count} are still entered`)
  }
}

const things: Readonly<Record<Thing, (count: number, bytes: number) => Promise<Close>>> = {
  tasks,
  waiters,
  scopes,
  laden
}

interface Asked {
  readonly thing: Thing
  readonly open: number
  readonly times: number
  /** What each that is laden holds beside the fiber and its entry. */
  readonly bytes?: number
}

export interface Time {
  /** Microseconds of processor, of all threads. */
  readonly all: number
  /** Microseconds in which the program stood still for the collector. */
  readonly pauses: number
}

let paused = 0
const collector = new PerformanceObserver((list) => count(list.getEntries()))
collector.observe({ entryTypes: ["gc"] })

const count = (entries: ReadonlyArray<{ readonly duration: number }>) => {
  for (const { duration } of entries) paused += duration * 1_000
}

/** Microseconds of pauses since this process began. */
const pauses = async (): Promise<number> => {
  // The collector's entries are queued a turn after it.
  await new Promise((resolve) => setImmediate(resolve))
  count(collector.takeRecords())
  return paused
}

answer({
  /** What it takes to open one and to end it again, so many of them open together. */
  time: async ({ bytes = 0, open, thing, times }: Asked): Promise<Time> => {
    await collect()
    const before = { all: cpuMicros(), pauses: await pauses() }
    for (let i = 0; i < times; i++) await (await things[thing](open, bytes))()
    return {
      all: (cpuMicros() - before.all) / (times * open),
      pauses: ((await pauses()) - before.pauses) / (times * open)
    }
  },
  /** Bytes of heap that each holds. */
  heap: async ({ bytes: load = 0, open, thing, times }: Asked): Promise<number> => {
    await collect()
    const before = process.memoryUsage().heapUsed
    const closing: Array<Close> = []
    for (let i = 0; i < times; i++) closing.push(await things[thing](open, load))
    await collect()
    const bytes = (process.memoryUsage().heapUsed - before) / (open * times)
    for (const close of closing) await close()
    return bytes
  }
})
