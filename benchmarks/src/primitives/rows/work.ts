import * as Effect from "effect/Effect"

/** What the work of a row comes to. */
export const result = 42

export const isResult = (value: unknown): boolean => value === result

/**
 * Work that ends at once, and work that waits a turn of the dispatcher first, as whatever reads from a socket does. The
 * former has something to do, be it little: a result that is there already, Effect hands on without any work.
 */
export const bodies: ReadonlyArray<readonly [name: string, work: Effect.Effect<number>]> = [
  ["ends at once", Effect.sync(() => result)],
  ["waits a turn", Effect.as(Effect.yieldNow, result)]
]
