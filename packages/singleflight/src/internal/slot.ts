/**
 * The place of one key: the generation that observers join, the runs that have not ended, and the exit that is held.
 *
 * Invariants
 * 1. There is at most one generation that observers can join, and none beside an exit that is held and not expired.
 * 2. `exclusive`: a generation starts only when no run of the slot is left that is neither over nor stuck, and it
 *    starts in the turn in which the last one goes.
 * 3. An exit is held only for a generation that observers could still join: not after an invalidation or a cancel.
 * 4. Looking for a held exit and joining happen in one operation of the observer (`observe`): an interrupt cannot fall
 *    between being counted and waiting.
 * 5. The slot tells its holder when it has become idle: no generation, no run, no exit.
 */
import type { CancelReason } from "@curfew/reason"
import { inlineUnsafe, keepUnsafe } from "@curfew/reason/CancelCell"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { SharedCancelled } from "../SharedCancelled.ts"
import type { SharedStatistics } from "../SharedOptions.ts"
import { SharedSelfWait } from "../SharedSelfWait.ts"
import { Generation, type Place } from "./generation.ts"
import { Observer, type Waiter, type Waits } from "./observers.ts"
import type { Kept, Retention } from "./retention.ts"
import { nowOf, type Settings } from "./settings.ts"
import { type Run, runsAround, wayTo } from "./waits.ts"

/** Of those that have not started any; nothing is put into it. */
const none: Array<never> = []

export class Slot<K, A, E> implements Place<K, A, E>, Kept {
  readonly key: K
  readonly name: string
  readonly #settings: Settings<K, A, E>
  readonly #retention: Retention
  readonly #onIdle: ((slot: Slot<K, A, E>) => void) | undefined
  #current: Generation<K, A, E> | undefined = undefined
  /** Started, and neither over nor stuck; more than one only with `overlap`. */
  #live: Array<Generation<K, A, E>> = none
  #held: Exit.Exit<A, E | SharedCancelled> | undefined = undefined
  /** Monotonic milliseconds. */
  #heldUntil = 0
  #work: Effect.Effect<A, E> | undefined = undefined
  before: Kept | undefined = undefined
  after: Kept | undefined = undefined

  constructor(
    settings: Settings<K, A, E>,
    retention: Retention,
    key: K,
    name: string,
    onIdle?: (slot: Slot<K, A, E>) => void
  ) {
    this.#settings = settings
    this.#retention = retention
    this.key = key
    this.name = name
    this.#onIdle = onIdle
  }

  /** The exit that is held, if it has not expired. */
  hit(): Exit.Exit<A, E | SharedCancelled> | undefined {
    const held = this.#held
    if (held === undefined || this.expired()) return undefined
    this.#retention.used(this)
    this.#settings.counts.hits++
    return held
  }

  get work(): Effect.Effect<A, E> {
    // The context of a run has the scope, and so it needs none.
    this.#work ??= Effect.suspend(() => this.#settings.lookup(this.key) as Effect.Effect<A, E>)
    return this.#work
  }

  get ahead(): Iterable<Run> {
    return this.#settings.exclusive ? this.#live : []
  }

  /** Why an observer inside these runs would wait for itself, if it would. */
  selfWait(inside: ReadonlyArray<Run>): SharedSelfWait | undefined {
    if (inside.length === 0) return undefined
    const path = wayTo(this.#current === undefined ? this.ahead : [this.#current], inside)
    return path && new SharedSelfWait({ name: this.name, path })
  }

  /** Joins the generation, or begins one. */
  join(observer: Observer<A, E>): Generation<K, A, E> {
    this.#letGo()
    if (this.#current !== undefined) {
      this.#settings.counts.joined++
      this.#current.add(observer)
      return this.#current
    }
    const generation = new Generation(this.#settings, this)
    this.#current = generation
    generation.add(observer)
    this.#next()
    return generation
  }

  #next(): void {
    const next = this.#current
    if (next?.phase === "waiting") {
      const last = this.#live.at(-1)
      if (this.#settings.exclusive && last !== undefined) {
        last.awaited()
      } else {
        if (this.#live === none) this.#live = [next]
        else this.#live.push(next)
        next.start()
      }
    } else if (next === undefined && this.#live.length === 0 && this.#held === undefined) {
      this.#onIdle?.(this)
    }
  }

  forget(generation: object): void {
    if (this.#current === generation) this.#current = undefined
  }

  settle(generation: object, exit: Exit.Exit<A, E | SharedCancelled>, millis: number): void {
    if (this.#current !== generation) return
    this.#current = undefined
    if (millis <= 0) return
    const now = nowOf(this.#settings)
    this.#held = exit
    this.#heldUntil = now + millis
    this.#retention.add(this, now)
  }

  release(generation: object): void {
    // Mostly it is the only one.
    const index = this.#live.lastIndexOf(generation as Generation<K, A, E>)
    if (index >= 0 && index === this.#live.length - 1) this.#live.pop()
    else if (index >= 0) this.#live.splice(index, 1)
    this.#next()
  }

  expired(now?: number): boolean {
    return this.#heldUntil !== Number.POSITIVE_INFINITY && (now ?? nowOf(this.#settings)) >= this.#heldUntil
  }

  #letGo(): void {
    if (this.#held === undefined) return
    this.#held = undefined
    this.#retention.remove(this)
  }

  evict(): void {
    this.#letGo()
    this.#next()
  }

  /** Later observers get a new run; those who wait keep theirs. */
  invalidate(): void {
    // What has not started yet is as new as it can be.
    if (this.#current?.phase === "running") this.#current = undefined
    this.evict()
  }

  /** Cancels every generation that is not being cancelled yet; true iff there was one. */
  cancel(reason: CancelReason): boolean {
    let cancelled = false
    for (const generation of this.#generations) if (generation.cancel(reason)) cancelled = true
    return cancelled
  }

  /** The current one first: cancelling an older one would start it. */
  get #generations(): ReadonlySet<Generation<K, A, E>> {
    return new Set(this.#current === undefined ? this.#live : [this.#current, ...this.#live])
  }

  get observers(): number {
    let observers = 0
    for (const generation of this.#generations) observers += generation.observers
    return observers
  }

  /** Adds what can be counted by looking. */
  count(into: { observers: number; waiting: number; running: number; cleaningUp: number }): void {
    for (const generation of this.#generations) {
      into.observers += generation.observers
      const { phase } = generation
      if (phase === "waiting" || phase === "running" || phase === "cleaningUp") into[phase]++
    }
  }
}

export const statisticsOf = <K, A, E>(
  settings: Settings<K, A, E>,
  retention: Retention,
  slots: ReadonlyArray<Slot<K, A, E>>
): SharedStatistics => {
  retention.purge(nowOf(settings))
  const counted = { observers: 0, waiting: 0, running: 0, cleaningUp: 0 }
  for (const slot of slots) slot.count(counted)
  return { ...counted, ...settings.counts, retained: retention.size }
}

/** Where slots are found, and made where there is none. */
export interface Slots<K, A, E> {
  readonly find: (key: K) => Slot<K, A, E> | undefined
  readonly obtain: (key: K) => Slot<K, A, E>
}

/** Gets the exit of the slot's work: one that is held, that of the run, or that of a run which starts now. */
export const observe = <K, A, E>(slots: Slots<K, A, E>, key: K): Effect.Effect<A, E | SharedCancelled> =>
  Effect.withFiber((fiber) => {
    const held = slots.find(key)?.hit()
    return inlineUnsafe(fiber, held ?? waiting(fiber, slots, key))
  })

let keeps = false

/** Before the first is made. */
const keep = (): void => {
  if (keeps) return
  keeps = true
  keepUnsafe(new Observer(undefined, []))
  keepUnsafe(new Generation(undefined as never, undefined as never))
  keepUnsafe(new Slot(undefined as never, undefined as never, undefined, ""))
}

const waiting = <K, A, E>(
  fiber: Fiber.Fiber<unknown, unknown>,
  slots: Slots<K, A, E>,
  key: K
): Effect.Effect<A, E | SharedCancelled> => {
  const slot = slots.obtain(key)
  const inside = runsAround(fiber)
  const selfWait = slot.selfWait(inside)
  if (selfWait !== undefined) return Exit.die(selfWait)
  keep()
  const observer = new Observer<A, E>(fiber, inside)
  const generation = slot.join(observer)
  const { exit } = observer
  if (exit === undefined) return told(fiber, observer, generation)
  // Told at once it has nothing to wait for, and nothing to leave. What the work gave is not lost to an interrupt that came
  // meanwhile; but who was cancelled together with the run ends by that alone, as he would have if he had waited.
  return saysCancelled(exit) ? Effect.suspend(() => exit) : exit
}

const saysCancelled = (exit: Exit.Exit<unknown, unknown>): boolean =>
  exit._tag === "Failure" &&
  exit.cause.reasons.some((reason) => reason._tag === "Fail" && reason.error instanceof SharedCancelled)

const told = <K, A, E>(
  fiber: Fiber.Fiber<unknown, unknown>,
  observer: Observer<A, E>,
  generation: Generation<K, A, E>
): Effect.Effect<A, E | SharedCancelled> =>
  Effect.callback((resume) => {
    observer.enter(fiber, resume)
    return Effect.suspend(() => generation.leave(observer))
  })

/** Waits without a fiber for what no run stands around. */
export const wait = <K, A, E>(slots: Slots<K, A, E>, key: K, waiter: Waiter<A, E>): void => {
  keep()
  new Waited<K, A, E>(waiter).join(slots, key)
}

class Waited<K, A, E> implements Waits<A, E> {
  readonly #observer: Observer<A, E>
  #generation: Generation<K, A, E> | undefined = undefined
  /** It was left by what a name or a key called, before it had joined. */
  #left = false

  constructor(waiter: Waiter<A, E>) {
    this.#observer = new Observer<A, E>(undefined, [], waiter)
    waiter.joins(this)
  }

  join(slots: Slots<K, A, E>, key: K): void {
    try {
      const generation = slots.obtain(key).join(this.#observer)
      this.#generation = generation
      if (this.#left) generation.leaveNow(this.#observer)
    } catch (error) {
      if (!this.#left) this.#observer.tell(Exit.die(error))
    }
  }

  get enter(): Effect.Effect<A, E | SharedCancelled> {
    return Effect.withFiber((fiber) =>
      Effect.callback((resume) => {
        this.#observer.enter(fiber, resume)
        return Effect.suspend(() => {
          this.#left = true
          return this.#generation === undefined ? Effect.void : this.#generation.leave(this.#observer)
        })
      })
    )
  }

  get hosted(): boolean {
    return this.#generation?.hostedBy(this.#observer) === true
  }

  leave(): void {
    this.#left = true
    this.#generation?.leaveNow(this.#observer)
  }
}
