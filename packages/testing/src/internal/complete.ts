/**
 * Running one effect to its end in a world of its own.
 *
 * Invariants
 * 1. The world is killed when this returns, whichever way it returns.
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import { located } from "./locate.ts"
import { capture, positionOf } from "./position.ts"
import type { StageOptions } from "./stage.ts"
import { type Ended, World } from "./world.ts"

export interface Completed<A, E> {
  readonly ended: Ended
  readonly exit: Exit.Exit<A, E> | undefined
  /** Operations of all of its fibers. */
  readonly steps: number
  /** The fibers that are alive, in words. */
  readonly waiting: () => ReadonlyArray<string>
}

export const complete = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  context: Context.Context<R>,
  options: StageOptions
): Effect.Effect<Completed<A, E>> =>
  Effect.suspend(() => {
    const world = new World({ ...options, context: context as Context.Context<never> })
    const look = world.start(effect, "run")
    return world
      .drive(() => look() !== undefined, { quiet: true })
      .pipe(
        Effect.map((ended) => {
          const steps = world.operations
          const captures = world.fibers
            .alive()
            .flatMap((record) => (record.fiber === undefined ? [] : [capture(record.fiber, record, steps)]))
          const waiting = () =>
            located((locate) =>
              captures.map((one) => {
                const { fiber, operation, source } = positionOf(one, locate)
                return `${fiber} in ${operation}${source === undefined ? "" : ` at ${source}`}`
              })
            )
          return { ended, exit: look(), steps, waiting }
        }),
        Effect.onExit(() => Effect.sync(() => world.kill()))
      )
  })
