/** What reached `OnUnhandled` while the program ran, by name and squashed cause. */
import { OnUnhandled, type Unhandled } from "@curfew/scope"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import { runs } from "../../../../test/support/seed.ts"

export interface Heard {
  readonly all: Array<Unhandled>
  /** The failures and defects themselves, in the order in which they came. */
  readonly causes: () => ReadonlyArray<unknown>
  readonly by: <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

export const hearing = (): Heard => {
  const all: Array<Unhandled> = []
  return {
    all,
    causes: () => all.map(({ cause }) => Cause.squash(cause)),
    by: (self) =>
      Effect.provideService(self, OnUnhandled, (unhandled) =>
        Effect.sync(() => {
          all.push(unhandled)
        })
      )
  }
}

/** How many random cases a property is tried with. */
export const { numRuns } = runs(60)
