/**
 * What a sweep finds in Effect itself, pinned. A test of the first part that fails tells that Effect has mended
 * something: take it out here and in docs/effect-findings.md. One of the second part tells that it broke something.
 */
import * as Cache from "effect/Cache"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FiberHandle from "effect/FiberHandle"
import * as FiberMap from "effect/FiberMap"
import * as FiberSet from "effect/FiberSet"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as LayerMap from "effect/LayerMap"
import * as PartitionedSemaphore from "effect/PartitionedSemaphore"
import * as Pool from "effect/Pool"
import * as PubSub from "effect/PubSub"
import * as Queue from "effect/Queue"
import * as RcMap from "effect/RcMap"
import * as RcRef from "effect/RcRef"
import * as Resource from "effect/Resource"
import { MixedScheduler } from "effect/Scheduler"
import type * as Scope from "effect/Scope"
import * as ScopedCache from "effect/ScopedCache"
import * as ScopedRef from "effect/ScopedRef"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as SynchronizedRef from "effect/SynchronizedRef"
import * as TxQueue from "effect/TxQueue"
import * as TxReentrantLock from "effect/TxReentrantLock"
import * as TxSemaphore from "effect/TxSemaphore"
import { describe, expect, test } from "vitest"
import { formatSweep, Probe, type SweepOptions, sweep } from "../src/index.ts"

type Setup = Effect.Effect<Effect.Effect<unknown, unknown>, unknown, Scope.Scope>

class Built extends Context.Service<Built, number>()("Built") {}

const { yieldNow } = Effect
const two = <A, E>(effect: Effect.Effect<A, E>) =>
  Effect.all([effect, effect], { concurrency: "unbounded", discard: true })

const stepsOf = async (setup: Setup, kind: string, options: SweepOptions) => {
  const report = await Effect.runPromise(sweep({ setup }, { states: ["fresh"], ...options }))
  return [...new Set(report.findings.filter((finding) => finding.kind === kind).map(({ step }) => step))]
}

const txSemaphore = (use: (semaphore: TxSemaphore.TxSemaphore) => Effect.Effect<unknown>): Setup =>
  Effect.gen(function* () {
    const semaphore = yield* TxSemaphore.make(1)
    yield* Probe.permits("permits", TxSemaphore.available(semaphore))
    return use(semaphore)
  })

const txLock = (use: (lock: TxReentrantLock.TxReentrantLock) => Effect.Effect<unknown>): Setup =>
  Effect.gen(function* () {
    const lock = yield* TxReentrantLock.make()
    yield* Probe.invariant("unlocked", () => Effect.map(TxReentrantLock.locked(lock), (locked) => !locked))
    return use(lock)
  })

/** Every item that was put in is in the queue, or was given to who took it. */
const conserved = (size: Effect.Effect<number>, counts: { put: number; got: number }) =>
  Probe.invariant("no item lost", () =>
    Effect.map(size, (left) => left + counts.got === counts.put || `${counts.put - counts.got - left} lost`)
  )

const queue = (take: (queue: Queue.Queue<number>) => Effect.Effect<unknown, unknown>): Setup =>
  Effect.gen(function* () {
    const queue = yield* Queue.unbounded<number>()
    const counts = { put: 0, got: 0 }
    yield* conserved(Queue.size(queue), counts)
    yield* Probe.answer("nothing", Effect.void, undefined)
    const put = Effect.andThen(
      Queue.offer(queue, 1),
      Effect.sync(() => counts.put++)
    )
    const taker = Effect.map(take(queue), () => counts.got++)
    return Effect.andThen(Effect.uninterruptible(put), taker)
  })

const txQueue: Setup = Effect.gen(function* () {
  const queue = yield* TxQueue.unbounded<number>()
  const counts = { put: 0, got: 0 }
  yield* conserved(TxQueue.size(queue), counts)
  yield* Probe.answer("nothing", Effect.void, undefined)
  const put = Effect.andThen(
    TxQueue.offer(queue, 1),
    Effect.sync(() => counts.put++)
  )
  return Effect.andThen(
    Effect.uninterruptible(put),
    Effect.map(TxQueue.take(queue), () => counts.got++)
  )
})

const pubSub: Setup = Effect.gen(function* () {
  const pubSub = yield* PubSub.unbounded<number>()
  const subscription = yield* PubSub.subscribe(pubSub)
  const counts = { put: 0, got: 0 }
  yield* conserved(PubSub.remaining(subscription), counts)
  yield* Probe.answer("nothing", Effect.void, undefined)
  const taker = Effect.map(PubSub.take(subscription), () => counts.got++)
  const publisher = Effect.andThen(
    PubSub.publish(pubSub, 1),
    Effect.sync(() => counts.put++)
  )
  return Effect.all([taker, Effect.uninterruptible(publisher)], { concurrency: "unbounded" })
})

const scopedCache = (use: (get: (key: number) => Effect.Effect<number>) => Effect.Effect<unknown>) =>
  Effect.gen(function* () {
    const item = yield* Probe.resource("item", { until: "end" })
    const lookup = (key: number) => Effect.as(Effect.andThen(yieldNow, item.scoped), key)
    const cache = yield* ScopedCache.make({ lookup, capacity: 10 })
    return use((key) => ScopedCache.get(cache, key))
  })

const semaphoreTake: Setup = Effect.gen(function* () {
  const semaphore = yield* Semaphore.make(1)
  yield* Probe.permits("permits", semaphore)
  return Effect.uninterruptibleMask((restore) =>
    Effect.andThen(restore(semaphore.take(1)), Effect.ensuring(restore(yieldNow), semaphore.release(1)))
  )
})

/** Some items are put, and counted when they are consumed. */
const queueOf = (
  items: number,
  use: (queue: Queue.Queue<number>, consumed: () => void) => Effect.Effect<unknown, unknown>
): Setup =>
  Effect.gen(function* () {
    const queue = yield* Queue.unbounded<number>()
    const counts = { put: 0, consumed: 0 }
    yield* Probe.invariant("no item lost", () =>
      Effect.map(Queue.size(queue), (left) => left + counts.consumed === counts.put)
    )
    const put = Effect.sync(() => {
      for (let i = 0; i < items; i++) if (Queue.offerUnsafe(queue, i)) counts.put++
    })
    return Effect.andThen(
      put,
      use(queue, () => {
        counts.consumed++
      })
    )
  })

describe("Effect 4.1.0 loses, when cancelled at a step", () => {
  const root: SweepOptions = { modes: ["root"] }
  const partitioned: Setup = Effect.gen(function* () {
    const semaphore = yield* PartitionedSemaphore.make<string>({ permits: 1 })
    yield* Probe.permits("permits", semaphore.available)
    return semaphore.withPermits("key", 1)(yieldNow)
  })

  test.each<[string, Setup, string, ReadonlyArray<number>]>([
    ["the permits of PartitionedSemaphore.withPermits", partitioned, "PermitLost", [7]],
    [
      "the permit of TxSemaphore.withPermit",
      txSemaphore((semaphore) => TxSemaphore.withPermit(semaphore, yieldNow)),
      "PermitLost",
      [25, 26, 27]
    ],
    [
      "the permits of TxSemaphore.withPermits",
      txSemaphore((semaphore) => TxSemaphore.withPermits(semaphore, 1, yieldNow)),
      "PermitLost",
      [25, 26, 27]
    ],
    [
      "the permit of TxSemaphore.withPermitScoped",
      txSemaphore((semaphore) =>
        Effect.scoped(Effect.andThen(TxSemaphore.withPermitScoped(semaphore), yieldNow))
      ),
      "PermitLost",
      [31, 32, 33]
    ],
    [
      "the lock of TxReentrantLock.withReadLock",
      txLock((lock) => TxReentrantLock.withReadLock(lock, yieldNow)),
      "Invariant",
      [26, 27, 28]
    ],
    [
      "the lock of TxReentrantLock.withWriteLock",
      txLock((lock) => TxReentrantLock.withWriteLock(lock, yieldNow)),
      "Invariant",
      [26, 27, 28]
    ],
    [
      "the lock of TxReentrantLock.readLock",
      txLock((lock) => Effect.scoped(Effect.andThen(TxReentrantLock.readLock(lock), yieldNow))),
      "Invariant",
      [33, 34, 35]
    ],
    [
      "the lock of TxReentrantLock.writeLock",
      txLock((lock) => Effect.scoped(Effect.andThen(TxReentrantLock.writeLock(lock), yieldNow))),
      "Invariant",
      [33, 34, 35]
    ],
    ["the item of TxQueue.take", txQueue, "Invariant", [63, 64, 65]],
    [
      "the item of a Queue.take with a time limit",
      queue((q) => Effect.timeout(Queue.take(q), "1 second")),
      "Invariant",
      [13, 14, 15]
    ],
    [
      "the item of a Queue.take in a race",
      queue((q) => Effect.raceFirst(Queue.take(q), Effect.never)),
      "Invariant",
      [11, 12]
    ],
    [
      "the item of an uninterruptible Queue.take",
      queue((q) => Effect.uninterruptible(Queue.take(q))),
      "Invariant",
      [10]
    ],
    ["the permits of a restored Semaphore.take", semaphoreTake, "PermitLost", [6]],
    [
      "the items of Stream.fromQueue that are taken in one go and not yet consumed",
      // The run afterwards would take what this one left, and lose the rest of that.
      Effect.tap(
        queueOf(2, (q, consumed) =>
          Stream.runForEach(Stream.take(Stream.fromQueue(q), 2), () => Effect.sync(consumed))
        ),
        () => Probe.answer("no run afterwards", Effect.succeed(1), 1)
      ),
      "Invariant",
      [18, 19, 20, 21]
    ]
  ])("%s", async (_, setup, kind, steps) => {
    expect(await stepsOf(setup, kind, root)).toEqual(steps)
  })
})

describe("Effect 4.1.0 loses, when cancelled at a step and made to wait for its turn in the clean-up", () => {
  const twice: SweepOptions = { modes: ["root", "twice"], maxRuns: 5_000 }

  test("the resource of ScopedCache.get, for as long as the process lives", async () => {
    const setup: Setup = scopedCache((get) => get(1))
    expect(await stepsOf(setup, "NotReleased", { modes: ["root"] })).toEqual([])
    // While the look-up is under way; the second place is the end of the waiter, before it stops the look-up.
    expect(await stepsOf(setup, "NotReleased", twice)).toEqual([
      3, 4, 5, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27
    ])
  })

  test("the item of a waiting PubSub.take", async () => {
    expect(await stepsOf(pubSub, "Invariant", { modes: ["root"] })).toEqual([])
    expect(await stepsOf(pubSub, "Invariant", twice)).toEqual([7, 8])
  })
})

test("an interrupt before the start is lost when a scheduler yields at its first operation", () => {
  let ran = false
  let yielded = false
  const scheduler = new MixedScheduler()
  scheduler.shouldYield = (fiber) => {
    const isChild = child !== undefined && fiber === child
    if (!isChild || yielded) return false
    yielded = true
    return true
  }
  let child: Fiber.Fiber<unknown> | undefined
  const program = Effect.gen(function* () {
    child = yield* Effect.forkChild(
      Effect.sync(() => {
        ran = true
      })
    )
    child.interruptUnsafe()
    yield* Fiber.await(child)
  })
  const root = Effect.runFork(program, { scheduler })
  root.currentDispatcher.flush()
  expect(ran).toBe(true)
})

const sound: Record<string, Setup> = {
  "Semaphore.withPermits": Effect.gen(function* () {
    const semaphore = yield* Semaphore.make(1)
    yield* Probe.permits("permits", semaphore)
    return two(semaphore.withPermits(1)(yieldNow))
  }),
  "Semaphore.takeScoped": Effect.gen(function* () {
    const semaphore = yield* Semaphore.make(1)
    yield* Probe.permits("permits", semaphore)
    return two(Effect.scoped(Effect.andThen(semaphore.takeScoped(1), yieldNow)))
  }),
  "Semaphore.withPermitsIfAvailable": Effect.gen(function* () {
    const semaphore = yield* Semaphore.make(1)
    yield* Probe.permits("permits", semaphore)
    return two(semaphore.withPermitsIfAvailable(1)(yieldNow))
  }),
  "PartitionedSemaphore.withPermitsIfAvailable": Effect.gen(function* () {
    const semaphore = yield* PartitionedSemaphore.make<string>({ permits: 1 })
    yield* Probe.permits("permits", semaphore.available)
    return two(semaphore.withPermitsIfAvailable(1)(yieldNow))
  }),
  Latch: Effect.map(Latch.make(), (latch) =>
    Effect.ensuring(
      Effect.all([latch.whenOpen(yieldNow), latch.open], { concurrency: "unbounded" }),
      latch.close
    )
  ),
  Deferred: Effect.succeed(
    Effect.flatMap(Deferred.make<number>(), (deferred) =>
      Effect.all([Deferred.await(deferred), Deferred.succeed(deferred, 1)], { concurrency: "unbounded" })
    )
  ),
  "Queue.take": queue(Queue.take),
  "Queue.offer, bounded": Effect.map(Queue.bounded<number>(1), (bounded) =>
    Effect.all(
      [
        Effect.forEach([1, 2, 3], (n) => Queue.offer(bounded, n), { discard: true }),
        Effect.forEach([1, 2, 3], () => Queue.take(bounded))
      ],
      { concurrency: "unbounded" }
    ).pipe(Effect.ensuring(Queue.clear(bounded)))
  ),
  "PubSub.subscribe": Effect.gen(function* () {
    const bounded = yield* PubSub.bounded<number>(1)
    yield* Probe.invariant("empty", () => Effect.map(PubSub.size(bounded), (size) => size === 0))
    return Effect.scoped(
      Effect.flatMap(PubSub.subscribe(bounded), (subscription) =>
        Effect.all(
          [
            Effect.forEach([1, 2], (n) => PubSub.publish(bounded, n)),
            Effect.forEach([1, 2], () => PubSub.take(subscription))
          ],
          { concurrency: "unbounded" }
        )
      )
    )
  }),
  Pool: Effect.gen(function* () {
    const item = yield* Probe.resource("item", { until: "end" })
    const lent = yield* Probe.resource("lent")
    const pool = yield* Pool.make({ acquire: Effect.andThen(yieldNow, item.scoped), size: 1 })
    return two(Effect.scoped(Effect.andThen(Pool.get(pool), lent.around(yieldNow))))
  }),
  "Pool.makeWithTTL": Effect.gen(function* () {
    const item = yield* Probe.resource("item", { until: "end" })
    const acquire = Effect.andThen(yieldNow, item.scoped)
    const pool = yield* Pool.makeWithTTL({ acquire, min: 0, max: 2, timeToLive: "1 minute" })
    return two(Effect.scoped(Effect.andThen(Pool.get(pool), yieldNow)))
  }),
  RcMap: Effect.gen(function* () {
    const item = yield* Probe.resource("item")
    const map = yield* RcMap.make({ lookup: (_: string) => Effect.andThen(yieldNow, item.scoped) })
    return two(Effect.scoped(Effect.andThen(RcMap.get(map, "key"), yieldNow)))
  }),
  "RcMap with idleTimeToLive": Effect.gen(function* () {
    const item = yield* Probe.resource("item", { until: "end" })
    const lookup = (_: string) => Effect.andThen(yieldNow, item.scoped)
    const map = yield* RcMap.make({ lookup, idleTimeToLive: "1 minute" })
    return two(Effect.scoped(Effect.andThen(RcMap.get(map, "key"), yieldNow)))
  }),
  RcRef: Effect.gen(function* () {
    const item = yield* Probe.resource("item")
    const ref = yield* RcRef.make({ acquire: Effect.andThen(yieldNow, item.scoped) })
    return two(Effect.scoped(Effect.andThen(RcRef.get(ref), yieldNow)))
  }),
  Cache: Effect.map(
    Cache.make({ lookup: (key: number) => Effect.as(yieldNow, key), capacity: 10 }),
    (cache) => two(Cache.get(cache, 1))
  ),
  "Effect.cached": Effect.gen(function* () {
    const item = yield* Probe.resource("item")
    return two(yield* Effect.cached(item.around(yieldNow)))
  }),
  ScopedRef: Effect.gen(function* () {
    const item = yield* Probe.resource("item", { until: "end" })
    const ref = yield* ScopedRef.make(() => 0)
    return ScopedRef.set(ref, Effect.as(Effect.andThen(item.scoped, yieldNow), 1))
  }),
  Resource: Effect.gen(function* () {
    const item = yield* Probe.resource("item", { until: "end" })
    const resource = yield* Resource.manual(Effect.as(Effect.andThen(item.scoped, yieldNow), 1))
    return Effect.andThen(Resource.refresh(resource), Resource.get(resource))
  }),
  FiberSet: Effect.map(Probe.resource("item"), (item) =>
    Effect.scoped(
      Effect.gen(function* () {
        const set = yield* FiberSet.make<void>()
        yield* FiberSet.run(set, item.around(Effect.never))
        yield* FiberSet.run(set, item.around(yieldNow))
      })
    )
  ),
  FiberMap: Effect.map(Probe.resource("item"), (item) =>
    Effect.scoped(
      Effect.gen(function* () {
        const map = yield* FiberMap.make<string, void>()
        yield* FiberMap.run(map, "key", item.around(Effect.never))
        yield* FiberMap.run(map, "key", item.around(yieldNow))
        yield* FiberMap.awaitEmpty(map)
      })
    )
  ),
  FiberHandle: Effect.map(Probe.resource("item"), (item) =>
    Effect.scoped(
      Effect.gen(function* () {
        const handle = yield* FiberHandle.make<void>()
        yield* FiberHandle.run(handle, item.around(Effect.never))
        yield* FiberHandle.run(handle, item.around(yieldNow))
        yield* FiberHandle.awaitEmpty(handle)
      })
    )
  ),
  "forkChild and join": Effect.map(Probe.resource("item"), (item) =>
    Effect.flatMap(Effect.forkChild(item.around(yieldNow)), Fiber.join)
  ),
  "forkChild, join and a time limit": Effect.succeed(
    Effect.timeoutOption(
      Effect.all([Effect.flatMap(Effect.forkChild(Effect.never), Fiber.join), Effect.void], {
        concurrency: "unbounded"
      }),
      "1 second"
    )
  ),
  SynchronizedRef: Effect.map(SynchronizedRef.make(0), (ref) =>
    two(SynchronizedRef.updateEffect(ref, (n) => Effect.as(yieldNow, n)))
  ),
  SubscriptionRef: Effect.map(SubscriptionRef.make(0), (ref) =>
    Effect.asVoid(
      Effect.all([SubscriptionRef.set(ref, 1), Stream.runHead(SubscriptionRef.changes(ref))], {
        concurrency: "unbounded"
      })
    )
  ),
  acquireUseRelease: Effect.map(Probe.resource("item"), (item) => two(item.around(yieldNow))),
  "acquireRelease, interruptible": Effect.map(Probe.resource("item"), (item) =>
    Effect.scoped(
      Effect.andThen(
        Effect.acquireRelease(Effect.andThen(yieldNow, item.acquire), () => item.release, {
          interruptible: true
        }),
        yieldNow
      )
    )
  ),
  raceFirst: Effect.map(Probe.resource("item"), (item) =>
    Effect.raceFirst(item.around(yieldNow), item.around(Effect.never))
  ),
  timeoutOption: Effect.map(Probe.resource("item"), (item) =>
    Effect.timeoutOption(item.around(Effect.sleep("2 seconds")), "1 second")
  ),
  "Stream.mapEffect": Effect.map(Probe.resource("item"), (item) =>
    Stream.fromEffect(item.scoped).pipe(
      Stream.scoped,
      Stream.flatMap(() => Stream.make(1, 2)),
      Stream.mapEffect((n) => Effect.as(yieldNow, n), { concurrency: 2 }),
      Stream.runCollect
    )
  ),
  "Stream.merge and buffer": Effect.map(Probe.resource("item"), (item) => {
    const stream = Stream.scoped(Stream.fromEffect(item.scoped))
    return Stream.runDrain(Stream.buffer(Stream.merge(stream, stream), { capacity: 1 }))
  }),
  "Stream.share": Effect.map(Probe.resource("item"), (item) =>
    Effect.scoped(
      Effect.flatMap(
        Stream.share(
          Stream.mapEffect(Stream.range(1, 3), () => item.around(yieldNow)),
          { capacity: 2 }
        ),
        (stream) => two(Stream.runDrain(stream))
      )
    )
  ),
  "Stream.switchMap": Effect.map(Probe.resource("item"), (item) =>
    Stream.runDrain(
      Stream.switchMap(Stream.range(1, 3), () =>
        Stream.flatMap(Stream.scoped(Stream.fromEffect(item.scoped)), () => Stream.fromEffect(yieldNow))
      )
    )
  ),
  "Stream.zipLatest": Effect.map(Probe.resource("item"), (item) => {
    const stream = Stream.mapEffect(Stream.range(1, 2), () => item.around(yieldNow))
    return Stream.runDrain(Stream.zipLatest(stream, stream))
  }),
  "Stream.debounce and groupedWithin": Effect.map(Probe.resource("item"), (item) =>
    Stream.mapEffect(Stream.range(1, 3), () => item.around(Effect.sleep("1 second"))).pipe(
      Stream.groupedWithin(2, "1500 millis"),
      Stream.debounce("2 seconds"),
      Stream.runDrain
    )
  ),
  "Stream.interruptWhen": Effect.map(Probe.resource("item"), (item) =>
    Stream.mapEffect(Stream.range(1, 5), () => item.around(yieldNow)).pipe(
      Stream.interruptWhen(Effect.sleep("1 second")),
      Stream.runDrain
    )
  ),
  "Queue.takeAll": queueOf(2, (queue, consumed) =>
    Effect.map(Queue.takeAll(queue), (items) => items.forEach(consumed))
  ),
  "Queue.takeN": queueOf(2, (queue, consumed) =>
    Effect.map(Queue.takeN(queue, 2), (items) => items.forEach(consumed))
  ),
  "Queue.takeBetween": queueOf(2, (queue, consumed) =>
    Effect.map(Queue.takeBetween(queue, 1, 2), (items) => items.forEach(consumed))
  ),
  "Pool.makeWithTTL, with more users than items": Effect.gen(function* () {
    const item = yield* Probe.resource("item", { until: "end" })
    const acquire = Effect.andThen(yieldNow, item.scoped)
    const pool = yield* Pool.makeWithTTL({ acquire, min: 0, max: 1, timeToLive: "1 minute" })
    return two(Effect.scoped(Effect.andThen(Pool.get(pool), yieldNow)))
  }),
  "RcMap.invalidate": Effect.gen(function* () {
    const item = yield* Probe.resource("item", { until: "end" })
    const lookup = (key: number) => Effect.as(Effect.andThen(yieldNow, item.scoped), key)
    const map = yield* RcMap.make({ lookup, idleTimeToLive: "1 second" })
    return Effect.andThen(Effect.scoped(RcMap.get(map, 1)), RcMap.invalidate(map, 1))
  }),
  "Cache.refresh": Effect.gen(function* () {
    const item = yield* Probe.resource("item")
    const lookup = (key: number) => Effect.as(item.around(yieldNow), key)
    const cache = yield* Cache.make({ lookup, capacity: 2 })
    return Effect.all([Cache.get(cache, 1), Cache.refresh(cache, 1)], { concurrency: "unbounded" })
  }),
  "Deferred.into": Effect.map(Probe.resource("item"), (item) =>
    Effect.flatMap(Deferred.make<void>(), (deferred) =>
      Effect.all([Deferred.into(item.around(yieldNow), deferred), Deferred.await(deferred)], {
        concurrency: 2
      })
    )
  ),
  Layer: Effect.map(Probe.resource("item"), (item) => {
    const layer = Layer.effectDiscard(Effect.andThen(yieldNow, item.scoped))
    return Effect.provide(yieldNow, Layer.merge(layer, Layer.fresh(layer)))
  }),
  LayerMap: Effect.gen(function* () {
    const item = yield* Probe.resource("item", { until: "end" })
    const layer = Layer.effect(Built, Effect.as(Effect.andThen(yieldNow, item.scoped), 1))
    const map = yield* LayerMap.make((_: string) => layer, { idleTimeToLive: "1 minute" })
    return Effect.provide(Built, map.get("key"))
  })
}

describe("Effect 4.1.0 survives a cancel at every step in", () => {
  test.each(Object.entries(sound))("%s", async (name, setup) => {
    const report = await Effect.runPromise(sweep({ name, setup }, { maxRuns: 600 }))
    expect(formatSweep(report)).toContain("nothing broken")
  })
})
