import type * as Brand from "effect/Brand"
import * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { millisUnsafe } from "./Argument.ts"

/**
 * A point on the monotonic clock, in milliseconds since an arbitrary start. Deadlines are instants: a change of the
 * wall clock does not move them, and an instant means nothing outside the process.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type Instant = number & Brand.Brand<"@curfew/scope/Instant">

/**
 * The instant that never comes.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const never: Instant = Number.POSITIVE_INFINITY as Instant

/**
 * The present instant.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const now: Effect.Effect<Instant> = /* @__PURE__ */ Effect.withFiberSucceed((fiber) =>
  nowUnsafe(fiber)
)

/**
 * The instant that lies the duration ahead. A negative duration is an instant in the past, an infinite one
 * {@link never}. What is no duration is an {@link IllegalArgument}.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Instant } from "@curfew/scope"
 *
 * const program = Effect.map(Instant.after("1 minute"), (at) => at > 0)
 * Effect.runSync(program) // => true
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const after = (duration: Duration.Input): Effect.Effect<Instant> =>
  Effect.withFiberSucceed(
    (fiber) => (nowUnsafe(fiber) + millisUnsafe("the duration of an instant", duration)) as Instant
  )

/**
 * The present instant of a clock.
 *
 * @stability internal
 * @since 0.1.0
 */
export const nowOf = (clock: Clock.Clock): Instant =>
  (Number(clock.monotonicTimeNanosUnsafe()) / 1e6) as Instant

/**
 * The present instant of the fiber's clock.
 *
 * @stability internal
 * @since 0.1.0
 */
export const nowUnsafe = (fiber: Fiber.Fiber<unknown, unknown>): Instant => nowOf(fiber.getRef(Clock.Clock))
