/** A run has no cell in its first run until somebody looks. */
import { CancelReason } from "@curfew/reason"
import { type Cell, childrenOf, rootsUnsafe } from "@curfew/reason/CancelCell"
import { Owner } from "@curfew/scope"
import * as Effect from "effect/Effect"
import { expect, test } from "vitest"
import { Shared } from "../src/index.ts"

const kinds = (cells: ReadonlyArray<Cell>): ReadonlyArray<string> =>
  cells.flatMap((cell) => [cell.kind, ...kinds(childrenOf(cell))])

const owned = <A, E>(work: Effect.Effect<A, E, Owner>): A =>
  Effect.runSync(Effect.provide(work, Owner.layer()) as Effect.Effect<A>)

test("a run that looks at the live tree in its first run finds itself there", () => {
  const seen = owned(
    Effect.flatMap(
      Shared.make(Effect.sync(() => kinds(rootsUnsafe()))),
      ({ get }) => get as Effect.Effect<never>
    )
  )
  expect(seen).toContain("shared")
  expect(kinds(rootsUnsafe())).not.toContain("shared")
})

test("a run that is cancelled in its first run ends there, and its observer is told why", () => {
  const log: Array<string> = []
  const reason = CancelReason.Superseded()
  const told = owned(
    Effect.gen(function* () {
      const shared: Shared.Shared<unknown, unknown> = yield* Shared.make(
        Effect.onInterrupt(
          Effect.suspend(() => Effect.andThen(shared.cancel(reason), Effect.never)),
          () => Effect.sync(() => log.push("cleaned up"))
        )
      )
      return yield* Effect.flip(shared.get)
    })
  )
  expect(told).toMatchObject({ _tag: "SharedCancelled", reason })
  expect(log).toEqual(["cleaned up"])
})

test("a run that waits for itself in its first run is told so", () => {
  const exit = owned(
    Effect.gen(function* () {
      const shared: Shared.Shared<unknown, unknown> = yield* Shared.make(Effect.suspend(() => shared.get))
      return yield* Effect.exit(shared.get)
    })
  )
  expect(JSON.stringify(exit)).toContain("SharedSelfWait")
})
