/**
 * A clock whose time moves only by jumping to the next sleeper.
 *
 * Invariants
 * 1. `now` never goes back, and moves only inside `jump`.
 * 2. Sleepers wake one at a time, the earliest first, equal ones in the order in which they fell asleep.
 * 3. An interrupted sleeper is gone from the list before its fiber goes on.
 * 4. A sleep of infinity is no sleeper: nothing will ever wake it.
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"

interface Sleeper {
  readonly at: number
  readonly wake: () => void
}

const nanosPerMilli = 1_000_000

export class VirtualClock implements Clock.Clock {
  now: number
  readonly #sleepers: Array<Sleeper> = []

  constructor(startAt: number) {
    this.now = startAt
  }

  /** How many sleep. */
  get size(): number {
    return this.#sleepers.length
  }

  /** When the next sleeper wakes. */
  get next(): number | undefined {
    return this.#sleepers[0]?.at
  }

  /** Moves to the next sleeper and wakes it. False when nobody sleeps. */
  jump(): boolean {
    const sleeper = this.#sleepers.shift()
    if (sleeper === undefined) return false
    this.now = Math.max(this.now, sleeper.at)
    sleeper.wake()
    return true
  }

  #insert(sleeper: Sleeper): void {
    let index = this.#sleepers.length
    while (index > 0 && (this.#sleepers[index - 1] as Sleeper).at > sleeper.at) index--
    this.#sleepers.splice(index, 0, sleeper)
  }

  #remove(sleeper: Sleeper): void {
    const index = this.#sleepers.indexOf(sleeper)
    if (index >= 0) this.#sleepers.splice(index, 1)
  }

  #nanos(): bigint {
    return BigInt(Math.round(this.now * nanosPerMilli))
  }

  currentTimeMillisUnsafe(): number {
    return this.now
  }
  currentTimeNanosUnsafe(): bigint {
    return this.#nanos()
  }
  monotonicTimeNanosUnsafe(): bigint {
    return this.#nanos()
  }
  readonly currentTimeMillis: Effect.Effect<number> = Effect.sync(() => this.now)
  readonly currentTimeNanos: Effect.Effect<bigint> = Effect.sync(() => this.#nanos())
  readonly monotonicTimeNanos: Effect.Effect<bigint> = Effect.sync(() => this.#nanos())

  sleep(duration: Duration.Duration): Effect.Effect<void> {
    const millis = Duration.toMillis(duration)
    if (millis <= 0) return Effect.yieldNow
    if (!Number.isFinite(millis)) return Effect.never
    return Effect.callback((resume) => {
      const sleeper = { at: this.now + millis, wake: () => resume(Effect.void) }
      this.#insert(sleeper)
      return Effect.sync(() => this.#remove(sleeper))
    })
  }
}
