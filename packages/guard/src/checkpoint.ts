import { IllegalArgument } from "@curfew/scope"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"

/**
 * How long work may hold the thread between two turns of the event loop, in milliseconds. Five by default: a server
 * that answers others in the meantime delays them by at most that. Zero or less lets it run at every checkpoint, infinity
 * at none; NaN is an `IllegalArgument`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const TimeSlice: Context.Reference<number> = /* @__PURE__ */ Context.Reference(
  "@curfew/guard/TimeSlice",
  {
    defaultValue: () => 5
  }
)

const noSlice = (value: number): IllegalArgument =>
  new IllegalArgument({
    argument: "the TimeSlice of checkpoint",
    value,
    expected: "milliseconds, or Infinity to hold the thread as long as the work likes"
  })

// The slice is the thread's, not the fiber's: whoever lets the event loop run, lets it run for all.
let sliceStart = 0n

/**
 * A point in a long computation at which it can be cancelled.
 *
 * **Guarantees**
 *
 * - **Bounded delay**: a cancel is noticed within one {@link TimeSlice} of the loop, because the event loop, which
 *   is where a client's leaving arrives, gets a turn when the slice is used up.
 * - **Cheap between**: within the slice it costs one look at the clock.
 *
 * **When cancelled**
 *
 * The work ends here. In a mask it does not.
 *
 * **Gotchas**
 *
 * A loop without any suspension is one turn of the event loop, however many checks it makes: without a checkpoint, or
 * another way to yield, no cancel from outside can arrive.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { checkpoint } from "@curfew/guard"
 *
 * const sum = Effect.gen(function* () {
 *   let total = 0
 *   for (let i = 0; i < 1000; i++) {
 *     total += i
 *     yield* checkpoint
 *   }
 *   return total
 * })
 * await Effect.runPromise(sum) // => 499500
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const checkpoint: Effect.Effect<void> = /* @__PURE__ */ Effect.withFiber((fiber) =>
  hasTimeUnsafe(fiber.context) ? Effect.void : breathe
)

/**
 * Whether the time slice of the thread is not used up: then a checkpoint in this context would go on at once.
 *
 * @stability internal
 * @since 0.1.0
 */
export const hasTimeUnsafe = (context: Context.Context<never>): boolean => {
  const used = Number(Context.get(context, Clock.Clock).monotonicTimeNanosUnsafe() - sliceStart) / 1e6
  // A negative use is another clock's: start anew, as after a used-up slice.
  return used >= 0 && used < Context.get(context, TimeSlice)
}

const breathe: Effect.Effect<void> = /* @__PURE__ */ Effect.andThen(
  /* @__PURE__ */ Effect.flatMap(TimeSlice, (slice) =>
    Number.isNaN(slice) ? Effect.die(noSlice(slice)) : Effect.yieldNow
  ),
  /* @__PURE__ */ Effect.map(Clock.Clock, (clock) => {
    sliceStart = clock.monotonicTimeNanosUnsafe()
  })
)
