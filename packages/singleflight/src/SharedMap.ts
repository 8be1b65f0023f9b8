import { CancelReason } from "@curfew/reason"
import type { Owner, TaskScope } from "@curfew/scope"
import { countUnsafe } from "@curfew/scope/Argument"
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as MutableHashMap from "effect/MutableHashMap"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { Retention } from "./internal/retention.ts"
import { makeSettings, nowOf, type Settings } from "./internal/settings.ts"
import { observe, Slot, type Slots, statisticsOf, wait } from "./internal/slot.ts"
import { join, look, type Waiter } from "./Retained.ts"
import type { SharedCancelled } from "./SharedCancelled.ts"
import type { SharedOptions, SharedStatistics } from "./SharedOptions.ts"

/**
 * Shared work by key.
 *
 * **Guarantees**
 *
 * - **One run (L29)**: whoever asks for a key while a run of it is under way joins it, and all get the same exit.
 * - **Leaving (L30)**: an observer's cancel is immediate and touches nobody else.
 * - **Keys apart**: keys that are not equal have nothing to do with each other.
 *
 * @see make for what can be set and the rest of what is guaranteed.
 * @stability unstable
 * @since 0.1.0
 */
export interface SharedMap<in K, out A, out E = never> {
  /** Waits for the exit: one that is retained, that of the run under way, or that of a run which starts now. */
  readonly get: (key: K) => Effect.Effect<A, E | SharedCancelled>
  /** Later observers get a new run: drops what is retained. Those who wait now keep the run they have. */
  readonly invalidate: (key: K) => Effect.Effect<void>
  /** The same for every key. */
  readonly invalidateAll: Effect.Effect<void>
  /** Cancels what runs for the key; true iff something did. Does not wait for the clean-up. */
  readonly cancel: (key: K, reason?: CancelReason) => Effect.Effect<boolean>
  /** The same for every key; gives how many there were. */
  readonly cancelAll: (reason?: CancelReason) => Effect.Effect<number>
  /** How many fibers wait for an exit of the key now. */
  readonly observers: (key: K) => Effect.Effect<number>
  /** How many keys have a run, one that waits to start, or a retained exit. */
  readonly size: Effect.Effect<number>
  /** Of all keys together. */
  readonly statistics: Effect.Effect<SharedStatistics>
}

/**
 * What `SharedMap.make` can be told.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface Options<K, A, E> extends SharedOptions {
  /** How long an exit is held for later observers. Is not asked about interruption. Default: not at all. */
  readonly retain?: ((exit: Exit.Exit<A, E>, key: K) => Duration.Input) | undefined
  /**
   * How many retained exits are held at most; beyond that the least recently used one goes. What runs is not counted and
   * never goes. Default: no limit.
   */
  readonly capacity?: number | undefined
  /**
   * The runs' name in reports: a string, to which a key that is a string, a number or the like is added in brackets, or
   * a function of the key. Default: `shared`.
   */
  readonly name?: string | ((key: K) => string) | undefined
}

/** A key that is equal to nothing but itself. */
const isPlain = (key: unknown): boolean => typeof key !== "object" && typeof key !== "function"

class SharedMapImpl<K, A, E> implements SharedMap<K, A, E>, Slots<K, A, E> {
  readonly #settings: Settings<K, A, E>
  readonly #retention: Retention
  /** Those whose keys are no objects. */
  readonly #plain = new Map<K, Slot<K, A, E>>()
  readonly #valued = MutableHashMap.empty<K, Slot<K, A, E>>()

  constructor(settings: Settings<K, A, E>, capacity: number) {
    this.#settings = settings
    this.#retention = new Retention(capacity)
  }

  find(key: K): Slot<K, A, E> | undefined {
    return isPlain(key) ? this.#plain.get(key) : Option.getOrUndefined(MutableHashMap.get(this.#valued, key))
  }

  obtain(key: K): Slot<K, A, E> {
    const found = this.find(key)
    if (found !== undefined) return found
    const slot = new Slot(this.#settings, this.#retention, key, this.#settings.nameOf(key), this.#forget)
    if (isPlain(key)) this.#plain.set(key, slot)
    else MutableHashMap.set(this.#valued, key, slot)
    return slot
  }

  readonly #forget = (slot: Slot<K, A, E>): void => {
    if (isPlain(slot.key)) this.#plain.delete(slot.key)
    else MutableHashMap.remove(this.#valued, slot.key)
  }

  get #all(): ReadonlyArray<Slot<K, A, E>> {
    return [...this.#plain.values(), ...MutableHashMap.values(this.#valued)]
  }

  readonly get = (key: K): Effect.Effect<A, E | SharedCancelled> => observe(this, key)

  readonly [look] = (key: K): Exit.Exit<A, E | SharedCancelled> | undefined => this.find(key)?.hit()

  readonly [join] = (waiter: Waiter<A, E>, key: K): void => wait(this, key, waiter)

  readonly invalidate = (key: K): Effect.Effect<void> => Effect.sync(() => this.find(key)?.invalidate())

  readonly invalidateAll = Effect.sync(() => {
    for (const slot of this.#all) slot.invalidate()
  })

  readonly cancel = (key: K, reason: CancelReason = requested): Effect.Effect<boolean> =>
    Effect.sync(() => this.find(key)?.cancel(reason) === true)

  readonly cancelAll = (reason: CancelReason = requested): Effect.Effect<number> =>
    Effect.sync(() => {
      let cancelled = 0
      for (const slot of this.#all) if (slot.cancel(reason)) cancelled++
      return cancelled
    })

  readonly observers = (key: K): Effect.Effect<number> => Effect.sync(() => this.find(key)?.observers ?? 0)

  readonly size = Effect.sync(() => {
    this.#retention.purge(nowOf(this.#settings))
    return this.#plain.size + MutableHashMap.size(this.#valued)
  })

  readonly statistics = Effect.sync(() => statisticsOf(this.#settings, this.#retention, this.#all))
}

/**
 * Makes shared work by key: nothing runs before the first `get` of a key.
 *
 * **Guarantees**
 *
 * - **One run (L29)**, **leaving (L30)**, **unobserved (L31)**, **exclusive (L32)**, **retention (L33)**,
 *   **isolation (L34)**, **a typed end (L35)**, **closed owners (L46)**: for each key, as with {@link Shared.make}.
 * - **Keys by value**: keys are equal as Effect's `Equal` says, so structurally where they are plain data.
 * - **Capacity**: beyond it the least recently used retained exit goes; nothing that runs does.
 * - **No trace**: a key of which nothing runs and nothing is retained takes no memory.
 *
 * **When cancelled**
 *
 * A cancelled `get` returns at once. The run goes on for the others, or is cancelled after the linger.
 *
 * **Gotchas**
 *
 * Do not change a key that is an object: its hash is remembered. A key that throws when it is looked at is a defect of the
 * observer. And as with {@link Shared.make}, a run that waits for itself is refused, and a retained exit expires when
 * somebody looks.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Exit from "effect/Exit"
 * import { Owner } from "@curfew/scope"
 * import { SharedMap } from "@curfew/singleflight"
 *
 * const asked: Array<number> = []
 * const program = Effect.gen(function* () {
 *   const users = yield* SharedMap.make((id: number) => Effect.sync(() => asked.push(id)), {
 *     retain: (exit) => (Exit.isSuccess(exit) ? "1 minute" : 0),
 *     capacity: 1000,
 *     name: "user"
 *   })
 *   yield* users.get(7)
 *   yield* users.get(7)
 *   yield* users.get(8)
 * })
 * await Effect.runPromise(Effect.provide(program, Owner.layer()))
 * asked // => [7, 8]
 * ```
 *
 * @see Shared.make for a single piece of work.
 * @stability unstable
 * @since 0.1.0
 */
export const make: {
  <K, A, E, R>(
    lookup: (key: K) => Effect.Effect<A, E, R>,
    options: Options<NoInfer<K>, NoInfer<A>, NoInfer<E>> & { readonly owner: TaskScope.TaskScope }
  ): Effect.Effect<SharedMap<K, A, E>, never, Exclude<R, Scope.Scope>>
  <K, A, E, R>(
    lookup: (key: K) => Effect.Effect<A, E, R>,
    options?: Options<NoInfer<K>, NoInfer<A>, NoInfer<E>>
  ): Effect.Effect<SharedMap<K, A, E>, never, Exclude<R, Scope.Scope> | Owner>
} = <K, A, E, R>(
  lookup: (key: K) => Effect.Effect<A, E, R>,
  options?: Options<K, A, E>
): Effect.Effect<SharedMap<K, A, E>, never, Exclude<R, Scope.Scope>> =>
  Effect.withFiberSucceed((fiber) => {
    const settings = makeSettings<K, A, E>(
      fiber.context as Context.Context<never>,
      lookup as (key: K) => Effect.Effect<A, E>,
      naming(options?.name ?? "shared"),
      options?.retain,
      options
    )
    return new SharedMapImpl(
      settings,
      countUnsafe("the capacity of the shared map", options?.capacity ?? Number.POSITIVE_INFINITY, 0)
    )
  })

const naming = <K>(name: string | ((key: K) => string)): ((key: K) => string) =>
  typeof name === "function"
    ? name
    : (key) =>
        (typeof key === "object" && key !== null) || typeof key === "function"
          ? name
          : `${name}(${String(key)})`

const requested: CancelReason = /* @__PURE__ */ CancelReason.Requested({
  message: "the shared work was cancelled"
})
