/** A disk that takes its time, so that there is something to see; and one that the scenario can hold still. */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"

export interface SlowDisk {
  readonly pause: Effect.Effect<void>
  /** Until `release` no pause ends. */
  readonly hold: Effect.Effect<unknown>
  readonly release: Effect.Effect<unknown>
}

export const slowDisk = (pace: Duration.Input): Effect.Effect<SlowDisk> =>
  Effect.map(Latch.make(true), (turning) => ({
    pause: Effect.andThen(Effect.sleep(pace), turning.await),
    hold: turning.close,
    release: turning.open
  }))
