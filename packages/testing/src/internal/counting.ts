/**
 * What the probes count.
 *
 * Invariants
 * 1. `acquire` and `release` are one operation each: a cancel cannot fall into them.
 * 2. Counting free permits gives back every permit that it took.
 */
import * as Effect from "effect/Effect"
import type * as Semaphore from "effect/Semaphore"
import type { Resource } from "../Probe.ts"
import { type Broken, nothing, type Registry } from "./registry.ts"

export const plural = (count: number, word: string): string => `${count} ${word}${count === 1 ? "" : "s"}`

/** Counts a resource, and looks after each run or at the end whether as many are held as should be. */
export const countResource = (registry: Registry, name: string, until: "run" | "end"): Resource => {
  let held = 0
  let before = 0
  const notReleased = (count: number): ReadonlyArray<Broken> =>
    count <= 0
      ? []
      : [{ kind: "NotReleased", probe: name, message: `${plural(count, name)} acquired and not released` }]
  registry.checks.push({
    ...nothing,
    name,
    before: Effect.sync(() => {
      before = held
    }),
    after: () => Effect.sync(() => (until === "run" ? notReleased(held - before) : [])),
    atEnd: () => (until === "end" ? notReleased(held) : [])
  })
  const acquire = Effect.sync(() => {
    held++
    registry.see({ what: "acquired", probe: name, detail: `${held} held` })
  })
  const release = Effect.sync(() => {
    held--
    registry.see({ what: "released", probe: name, detail: `${held} held` })
    if (held >= 0) return
    held = 0
    registry.note({ kind: "ReleasedTwice", probe: name, message: `${name} released when none was held` })
  })
  const use = Effect.sync(() => {
    registry.see({ what: "used", probe: name, detail: `${held} held` })
    if (held > 0) return
    registry.note({ kind: "UsedAfterEnd", probe: name, message: `${name} used while none was held` })
  })
  return {
    name,
    acquire,
    release,
    use,
    scoped: Effect.acquireRelease(acquire, () => release),
    around: (self) =>
      Effect.acquireUseRelease(
        acquire,
        () => self,
        () => release
      ),
    held: () => held
  }
}

/** Counts the free permits of a semaphore by taking them all. */
export const freePermits = (semaphore: Semaphore.Semaphore): Effect.Effect<number> => {
  const take = (taken: number): Effect.Effect<number> =>
    Effect.flatMap(semaphore.takeIfAvailable(1), (took) => (took ? take(taken + 1) : Effect.succeed(taken)))
  return Effect.flatMap(take(0), (taken) => Effect.as(semaphore.release(taken), taken))
}

/** A value in a message. */
export const show = (value: unknown): string => {
  try {
    return JSON.stringify(value) ?? String(value)
  } catch {
    return String(value)
  }
}
