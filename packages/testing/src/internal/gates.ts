/**
 * What the leak gates share.
 *
 * Invariants
 * 1. `repeat` runs one after the other and keeps nothing of a run.
 * 2. After `turns`, everything that was runnable and needed no time has run.
 */
import * as Effect from "effect/Effect"

/** Runs an effect several times, one after the other. */
export const repeat = <A, E, R>(work: Effect.Effect<A, E, R>, times: number): Effect.Effect<void, E, R> =>
  Effect.suspend(() => {
    let done = 0
    return Effect.whileLoop({
      while: () => done < times,
      body: () => work,
      step: () => {
        done++
      }
    })
  })

/** Some turns of the event loop. */
export const turns: Effect.Effect<void> = repeat(Effect.yieldNow, 10)

let collect: (() => void) | undefined

/** Collects garbage, now. */
export const forceGc = (): void => {
  if (collect === undefined) {
    const exposed = (globalThis as { readonly gc?: () => void }).gc
    if (exposed !== undefined) collect = exposed
    else {
      process.getBuiltinModule("node:v8").setFlagsFromString("--expose-gc")
      collect = process.getBuiltinModule("node:vm").runInNewContext("gc") as () => void
    }
  }
  collect()
}

/** The bytes of the heap in use. */
export const heapUsed = (): number => process.memoryUsage().heapUsed
