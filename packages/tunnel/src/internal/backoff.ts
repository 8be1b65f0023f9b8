/**
 * How long an agent waits before it tries again.
 *
 * **Invariants**
 * 1. The bound doubles from `initial` to `cap`; the wait is anywhere between a fifth of `initial` and the bound (full
 *    jitter), so that agents that lost one server together do not come back together, and none ever spins.
 * 2. What cannot heal by itself is tried again near the cap: between half of it and the whole.
 * 3. `reset` begins anew, and is called only after a connection that lasted.
 */
import { IllegalArgument } from "@curfew/scope"
import { millisUnsafe } from "@curfew/scope/Argument"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import type { BackoffOptions } from "../Agent.ts"

export interface BackoffPlan {
  readonly initial: number
  readonly factor: number
  readonly cap: number
  readonly lasting: number
}

const least = 1

export const planOf = (options: BackoffOptions = {}): BackoffPlan => {
  const initial = Math.max(least, millisUnsafe("the initial backoff", options.initial ?? "500 millis"))
  const cap = Math.max(initial, millisUnsafe("the cap of the backoff", options.cap ?? "30 seconds"))
  const lasting = Math.max(0, millisUnsafe("the lasting of the backoff", options.lasting ?? "10 seconds"))
  const factor = options.factor ?? 2
  if (!(factor >= 1 && Number.isFinite(factor))) {
    throw new IllegalArgument({
      argument: "the factor of the backoff",
      value: factor,
      expected: "a number from 1 on"
    })
  }
  return { initial, cap, lasting, factor }
}

const between = (low: number, high: number): Effect.Effect<number> =>
  Effect.map(Random.next, (chance) => low + (high - low) * chance)

/** The waits, one after the other. */
const schedule = ({ cap, factor, initial }: BackoffPlan): Schedule.Schedule<Duration.Duration> =>
  Schedule.exponential(Duration.millis(initial), factor).pipe(
    Schedule.modifyDelay(({ duration }) =>
      Effect.map(between(initial / 5, Math.min(cap, Duration.toMillis(duration))), Duration.millis)
    )
  )

export interface Backoff {
  /** The next wait. */
  readonly next: Effect.Effect<Duration.Duration>
  /** A wait that counts for nothing: before something that many may do at once. */
  readonly pause: Effect.Effect<Duration.Duration>
  /** The wait after a refusal that cannot heal by itself. */
  readonly far: Effect.Effect<Duration.Duration>
  readonly reset: Effect.Effect<void>
}

export const make = (plan: BackoffPlan): Effect.Effect<Backoff> =>
  Effect.gen(function* () {
    const whole = schedule(plan)
    let step = yield* Schedule.toStep(whole)
    return {
      next: Effect.clockWith((clock) =>
        Effect.map(
          // It always recurs.
          Effect.orDie(step(clock.currentTimeMillisUnsafe(), undefined)),
          ([, delay]) => delay
        )
      ),
      pause: Effect.map(between(plan.initial / 5, plan.initial), Duration.millis),
      far: Effect.map(between(plan.cap / 2, plan.cap), Duration.millis),
      reset: Effect.map(Schedule.toStep(whole), (fresh) => {
        step = fresh
      })
    }
  })
