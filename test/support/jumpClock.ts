/**
 * A clock that jumps to the next sleeper when nothing is runnable, so that a program with time limits runs without
 * waiting. Not for programs that wait for a real event, such as a socket: the clock would jump meanwhile.
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"

interface Sleeper {
  readonly at: number
  readonly wake: () => void
}

// A turn of the event loop may end between a fiber's yield and its next operation; two quiet turns may not.
const quietTurns = 2

export interface JumpClock extends Clock.Clock {
  /** While it stands, the clock does not jump. */
  standing: boolean
}

/** `activity` is any count that grows while fibers run. */
export const jumpClock = (activity: () => number): JumpClock => {
  const sleepers = new Set<Sleeper>()
  let now = 1_000_000
  let watching = false

  const watch = (last: number, quiet: number): void => {
    setImmediate(() => {
      if (sleepers.size === 0) {
        watching = false
        return
      }
      const seen = activity()
      if (clock.standing || seen !== last) return watch(seen, 0)
      if (quiet + 1 < quietTurns) return watch(seen, quiet + 1)
      const next = [...sleepers].reduce((a, b) => (b.at < a.at ? b : a))
      if (next.at === Number.POSITIVE_INFINITY) {
        watching = false
        return
      }
      sleepers.delete(next)
      now = Math.max(now, next.at)
      next.wake()
      watch(activity(), 0)
    })
  }

  const clock: JumpClock = {
    standing: false,
    currentTimeMillisUnsafe: () => now,
    currentTimeMillis: Effect.sync(() => now),
    currentTimeNanosUnsafe: () => BigInt(now) * 1_000_000n,
    currentTimeNanos: Effect.sync(() => BigInt(now) * 1_000_000n),
    monotonicTimeNanosUnsafe: () => BigInt(now) * 1_000_000n,
    monotonicTimeNanos: Effect.sync(() => BigInt(now) * 1_000_000n),
    sleep: (duration) => {
      const millis = Duration.toMillis(duration)
      if (millis <= 0) return Effect.yieldNow
      return Effect.callback<void>((resume) => {
        const sleeper: Sleeper = { at: now + Math.ceil(millis), wake: () => resume(Effect.void) }
        sleepers.add(sleeper)
        if (!watching) {
          watching = true
          watch(activity(), 0)
        }
        return Effect.sync(() => sleepers.delete(sleeper))
      })
    }
  }
  return clock
}
