/**
 * Heartbeats around a handler.
 *
 * Invariants
 * 1. They end with what they surround.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"

export const beating = <A, E>(
  beat: (within: Duration.Duration) => Effect.Effect<void>,
  heartbeat: { readonly every: Duration.Duration; readonly within: Duration.Duration } | undefined,
  body: Effect.Effect<A, E>
): Effect.Effect<A, E> =>
  heartbeat === undefined
    ? body
    : Effect.acquireUseRelease(
        Effect.forkChild(
          Effect.interruptible(
            Effect.forever(Effect.andThen(Effect.sleep(heartbeat.every), beat(heartbeat.within)))
          )
        ),
        () => body,
        (beats) => Fiber.interrupt(beats)
      )
