/** Turns of the event loop, which are counted and never timed. */
import * as Effect from "effect/Effect"

/** Waits until the event loop has gone round so often. */
export const turns = (count: number): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const turn = (left: number): unknown =>
      left === 0 ? resume(Effect.void) : setImmediate(() => turn(left - 1))
    turn(count)
  })

/** Waits, turn by turn, until this holds. */
export const until = (holds: Effect.Effect<boolean>): Effect.Effect<void> =>
  Effect.flatMap(holds, (held) => (held ? Effect.void : Effect.andThen(turns(1), until(holds))))
